"""Configuration of a model of transformers in place of the decoder, and what has no effect beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any, Literal

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.field_types import check_fields
from lit_core.origin import class_of
from lit_moe.nn.config import DecoderConfig

#: Fields with the factors of the auxiliary losses.
LOSSES = ("balance_weight", "z_weight", "sequence_weight", "global_weight")


@dataclass
class HFConfig:
    """A model of transformers, and the losses that are added to its training.

    Args:
        model: Name of a Hugging Face model, a folder with safetensors (absolute, from the working directory, or below
            the data root), or smollm2 for the packaged model; null with config.
        config: Keys of a transformers config, including model_type, for random weights; null with model.
        gates: Regular expression that the end of a gate's name matches, to take some of the gates; null takes all that
            transformers records.
        top_k: Experts per token, needed if the gates have no attribute top_k.
        balance_weight: Factor of the balance loss of each mixture layer in a micro-batch, 0 or more; 0 adds none.
        z_weight: Factor of the z-loss of each mixture layer, 0 or more; 0 adds none.
        sequence_weight: Factor of the balance loss of each sequence by itself, 0 or more; 0 adds none.
        global_weight: Factor of the balance loss of the optimizer step so far on all devices, 0 or more; 0 adds none.
        selection_bias: Whether the pretrained bias by which a gate chooses experts stays as it is, frozen; or moves
            after each optimizer step towards an even load, loss_free.
        bias_rate: Amount by which the selection bias moves per optimizer step, above 0, in the unit of the scores; null
            takes 0.001. Only with loss_free.
        activation_checkpointing: Whether each layer's activations are recomputed in the backward pass to save memory.
    """

    model: str | None = None
    config: dict[str, Any] | None = None
    gates: str | None = None
    top_k: int | None = None
    balance_weight: float = 0.0
    z_weight: float = 0.0
    sequence_weight: float = 0.0
    global_weight: float = 0.0
    selection_bias: Literal["frozen", "loss_free"] = "frozen"
    bias_rate: float | None = None
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.model is None) == (self.config is None):
            given = "neither `model` nor `config`" if self.model is None else "both `model` and `config`"
            raise UserError(f"`hugging_face` has {given}; name a model, or describe one of random weights.")
        check_at_least(1, top_k=self.top_k)
        check_at_least(0, **{name: getattr(self, name) for name in LOSSES})
        check_above(0, bias_rate=self.bias_rate)
        if self.selection_bias == "frozen" and self.bias_rate is not None:
            raise UserError(
                f"`bias_rate` is {self.bias_rate}, but a frozen bias does not move; set `selection_bias` to loss_free, "
                "or `bias_rate` to null."
            )
        if self.config is not None and "model_type" not in self.config:
            raise UserError("`hugging_face.config` has no model_type; name one of transformers, such as mixtral.")


def refuse_unused(
    config: HFConfig,
    decoder: DecoderConfig,
    router: Callable[..., Any],
    default: Callable[..., Any],
    seed: int | None,
) -> None:
    """Refuse the arguments of a task that have no effect beside a model of transformers.

    Args:
        config: The model.
        decoder: Description of a decoder of ours, of which the model takes the vocab_size alone.
        router: Makes the routers of such a decoder.
        default: What stands there if none is given.
        seed: Seed of weights that are drawn; None if none was given.

    Raises:
        UserError: If one of them is not at its default.
    """
    _refuse_fields(decoder)
    if router is not default and not _makes_the_same(router, default):
        made = class_of(router) if isinstance(router, partial) else router
        raise UserError(
            f"`router` is {getattr(made, '__name__', 'given')}, without effect beside `hugging_face`, whose model "
            "routes by its own gates; leave it out, and balance by `hugging_face.balance_weight` or the other factors "
            "there."
        )
    if config.model is not None and seed is not None:
        raise UserError(
            f"`seed` is {seed}, but all weights are read from `hugging_face.model`, and none is drawn; leave it out."
        )


def _refuse_fields(decoder: DecoderConfig) -> None:
    given = {
        field.name: field.default
        for field in fields(decoder)
        if field.default is not MISSING and getattr(decoder, field.name) != field.default
    }
    if not given:
        return
    names = ", ".join(f"`decoder.{name}` ({getattr(decoder, name)})" for name in given)
    own = "; recomputation is `hugging_face.activation_checkpointing`" if "activation_checkpointing" in given else ""
    raise UserError(
        f"{names} {'has' if len(given) == 1 else 'have'} no effect beside `hugging_face`, which describes the model"
        f"{own}; leave out what differs from the default: {', '.join(map(str, given.values()))}."
    )


def _makes_the_same(router: Callable[..., Any], default: Callable[..., Any]) -> bool:
    """Tell whether two factories make routers of one class and of equal settings, as a default that is written out."""
    expected = default(4, 2)
    try:
        made = router(4, 2)
    except UserError:  # of a router that takes other numbers
        return False
    public = [{name: value for name, value in vars(one).items() if name[0] != "_"} for one in (made, expected)]
    return type(made) is type(expected) and public[0] == public[1]
