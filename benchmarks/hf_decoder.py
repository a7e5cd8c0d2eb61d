"""Our decoder against the same model of transformers: forward, loss and backward, as ratios.

    python benchmarks/hf_decoder.py --output hf_decoder.json

Transformers makes a random model, which is imported, so that both have the same weights; losses and gradients are
compared before the timing. The mixtures are OLMoE's, whose weights are not renormalised, as in our presets.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from layers import Mismatch
from side_by_side import (
    Contender,
    OtherWork,
    arguments,
    cell,
    finish,
    markdown,
    measure,
    new_result,
    precisions,
    progress,
    ratios,
)
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, OlmoeConfig, OlmoeForCausalLM

from lit_core.lm.tokenizer import Tokenizer
from lit_core.lm.transformers_loading import quiet_transformers
from lit_moe.functional.token_nll import token_nll
from lit_moe.interop import import_model
from lit_moe.lm import load_module
from lit_moe.nn import HFConfig, HFDecoder, preset

THEIRS, EAGER, WRAPPED, OURS = "Hugging Face", "Hugging Face, eager", "Hugging Face in HFDecoder", "ours"
PEERS = (THEIRS, EAGER)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        preset: dense, switch or granular; granular's shared expert is routed, since OLMoE has none.
        n_layers: Decoder layers.
        d_model: Width of the residual stream.
        d_ff: Hidden width of the dense layer.
        vocab_size: Number of token ids.
        sequences: Sequences per step.
        length: Tokens per sequence.
        dtype: fp32 or bf16, of weights and activations.
    """

    preset: str
    n_layers: int
    d_model: int
    d_ff: int
    vocab_size: int
    sequences: int
    length: int
    dtype: str

    def model(self) -> Any:
        """Return a random model of transformers."""
        shape: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "intermediate_size": self.d_ff,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.d_model // 64,
            "num_key_value_heads": self.d_model // 64,
            "max_position_embeddings": self.length,
            "bos_token_id": None,
            "eos_token_id": 256,
            "pad_token_id": None,
            "tie_word_embeddings": False,
        }
        mixture = preset(self.preset, self.d_ff)  # type: ignore[arg-type]
        if mixture is None:
            return LlamaForCausalLM(LlamaConfig(**shape))
        shape["intermediate_size"] = mixture.expert_width
        shape["num_experts"] = mixture.n_experts + mixture.n_shared
        shape["num_experts_per_tok"] = mixture.top_k + mixture.n_shared
        return OlmoeForCausalLM(OlmoeConfig(**shape))


def cases(quick: bool) -> list[Case]:
    """Return the rows of the table; all but the quick ones have 4,096 tokens per step."""
    sizes = [(2, 64, 128, 300, 2, 64)] if quick else [(4, 256, 704, 4096, 8, 512), (4, 512, 1408, 8192, 8, 512)]
    names = ("dense", "switch", "granular")
    return [Case(name, *size, dtype) for dtype in precisions(list(DTYPES), quick) for name in names for size in sizes]


@dataclass
class Model:
    """A network and its loss, the mean over all next tokens of a batch of ids.

    Attributes:
        network: Its weights.
        loss: Computes the loss.
    """

    network: nn.Module
    loss: Callable[[Tensor], Tensor]

    def step(self, ids_BS: Tensor) -> None:
        """Go forward and backward, and release the gradients."""
        self.loss(ids_BS).backward()
        self.network.zero_grad(set_to_none=True)


def by_hidden(decoder: Any, ids_BS: Tensor) -> Tensor:
    """Return the loss of a network with our interface."""
    hidden_BSD = decoder.hidden(ids_BS)[:, :-1]
    return token_nll(hidden_BSD, ids_BS[:, 1:], decoder.head, decoder.config.vocab_size).mean()


def by_transformers(model: Any, experts: str | None, ids_BS: Tensor) -> Tensor:
    """Return the loss of transformers' own forward pass, with an implementation of the experts."""
    if experts is not None:
        model.set_experts_implementation(experts)
    loss: Tensor = model(input_ids=ids_BS, labels=ids_BS, use_cache=False).loss
    return loss


def build(case: Case) -> dict[str, Model]:
    """Build the contenders of a case, in float32, with the same weights."""
    theirs = case.model().train()
    wrapped = HFDecoder(HFConfig(config=theirs.config.to_dict())).train()
    wrapped.model.load_state_dict(theirs.state_dict())
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None), quiet_transformers():
        folder = Path(name)
        theirs.save_pretrained(folder / "theirs")
        Tokenizer.bytes().save(folder / "theirs")
        import_model(str(folder / "theirs"), str(folder / "ours.ckpt"))
        ours = load_module(folder / "ours.ckpt")[0].decoder.train()
    default = None if case.preset == "dense" else "grouped_mm"
    models = {
        THEIRS: Model(theirs, partial(by_transformers, theirs, default)),
        WRAPPED: Model(wrapped, partial(by_hidden, wrapped)),
        OURS: Model(ours, partial(by_hidden, ours)),
    }
    if case.preset != "dense":
        models[EAGER] = Model(theirs, partial(by_transformers, theirs, "eager"))
    return models


def draw(case: Case) -> Tensor:
    """Return random token ids of shape ``(sequences, length)``."""
    return torch.randint(case.vocab_size, (case.sequences, case.length))


def check(models: dict[str, Model], case: Case) -> None:
    """See that all have the same loss and gradients in float32.

    Raises:
        Mismatch: If not.
    """
    ids_BS = draw(case)
    found: dict[str, tuple[float, float]] = {}
    for name, model in models.items():
        loss = model.loss(ids_BS)
        loss.backward()
        gradients = [p.grad for p in model.network.parameters() if p.grad is not None]
        found[name] = loss.item(), nn.utils.get_total_norm(gradients).item()
        model.network.zero_grad(set_to_none=True)
    for name, values in found.items():
        for kind, mine, wanted in zip(("loss", "gradient's norm"), values, found[THEIRS], strict=True):
            if not abs(mine - wanted) < 1e-4 * wanted:
                raise Mismatch(f"The {kind} of {name} is {mine}, that of {THEIRS} {wanted}.")


def run(case: Case, rounds: int, warm_up: int) -> dict[str, Any]:
    """Build, check and time one case; return its ratios and what else belongs in the table."""
    models = build(case)
    check(models, case)
    for model in models.values():
        model.network.to(DTYPES[case.dtype])
    contenders = [Contender(name, model.step, partial(draw, case)) for name, model in models.items()]
    others = OtherWork()
    seconds = measure(contenders, rounds, warm_up)
    return {
        **vars(case),
        "ratios": ratios(seconds, THEIRS),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
    }


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result."""
    names, rows = (EAGER, WRAPPED, OURS), []
    for case in result["cases"]:
        measured = case["ratios"]
        size = f"{case['n_layers']}, {case['d_model']}, {case['d_ff']}, {case['vocab_size']}"
        theirs = f"{measured[THEIRS]['milliseconds']:.4g}"
        row = [f"{case['dtype']}, {case['preset']}, {size}", f"{case['sequences']} × {case['length']}", theirs]
        rows.append([*row, *(cell(measured.get(name), bold=name == OURS) for name in names)])
    return markdown(["dtype, preset, layers, d_model, d_ff, vocabulary", "tokens", f"{THEIRS} ms", *names], rows)


def main() -> None:
    """Time all cases, print the table and write the numbers."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    result, todo = new_result("hf_decoder", options, ("torch", "transformers")), cases(options.quick)
    for index, case in enumerate(todo, start=1):
        progress(f"[{index}/{len(todo)}] {case.dtype}, {case.preset}, d_model {case.d_model}")
        result["cases"].append(run(case, result["rounds"], result["warm_up"]))
    finish(result, options.output)
    print(table(result))


if __name__ == "__main__":
    main()
