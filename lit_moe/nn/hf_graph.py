"""What the graph of a model of transformers tells before it is trained: later tokens seen, parameters never trained."""

from __future__ import annotations

import re
from typing import Any

from lit_core.lm.influence import idle_parameters, sees_later_tokens
from lit_core.screen import rank_zero_warn


def check_graph(model: Any, copy: Any = None) -> None:
    """Warn of a model that is not causal, and freeze the parameters that get no gradient, in place.

    A token sees later ones in the mixture of Doge, for example, whose router exchanges the tokens' scores. No gradient
    reaches what only chooses, such as the indexers of sparse attention (DeepSeek-V3.2, GLM-DSA), for which
    transformers has no loss. They keep their values in any case; frozen, data-parallel training does not wait for
    their gradients.

    Args:
        model: A causal language model of transformers; nothing is computed, and nothing found, on the meta device.
        copy: A small copy, which is tried in place of a model without weights; None tries the model itself.
    """
    tried = model if copy is None else copy
    if tried.get_input_embeddings().weight.is_meta:
        return
    name = type(model).__name__
    if sees_later_tokens(tried):
        rank_zero_warn(
            f"{name} lets a token see later ones, which it has to predict, so its losses are lower than those of "
            "generated text; choose a model that is causal, or set what makes it so, such as is_decoder, in its config."
        )
    idle = idle_parameters(tried)
    if copy is not None:  # which has fewer layers
        found = set(map(_kind, idle))
        idle = {name: parameter for name, parameter in model.named_parameters() if _kind(name) in found}
    for parameter in idle.values():
        parameter.requires_grad_(False)
    if idle:
        kinds = sorted({_kind(each).rpartition(".")[0] for each in idle})
        rank_zero_warn(
            f"{len(idle)} parameters of {name} get no gradient, as they choose without a loss of their own; they are "
            f"frozen: {', '.join(kinds[:4])}{', …' if len(kinds) > 4 else ''}."
        )


def _kind(name: str) -> str:
    """Return the name of a parameter without the number of its layer."""
    return re.sub(r"\d+", "*", name)
