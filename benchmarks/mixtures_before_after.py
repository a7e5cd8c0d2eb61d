"""Faults that a trial of transformers' mixtures found in lit_moe, each number before and after it was mended.

    python benchmarks/mixtures_before_after.py --output docs/results/mixtures_before_after.md

Small random copies of all causal language models of the installed transformers that hold mixtures, and published shapes
on the meta device. Before is measured by the former rule, which is written out here and runs on transformers' own
model; after is measured with the present code.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "moe" / "nn"))

from published_flops import PUBLISHED

from lit_core.errors import UserError
from lit_core.files.json_files import parse_json
from lit_core.files.paths import atomic_write
from lit_core.files.tables import markdown_table
from lit_core.lm.tokenizer import Tokenizer
from lit_core.lm.transformers_loading import quiet_transformers
from lit_moe.doctor.check import checks
from lit_moe.doctor.examine import found
from lit_moe.doctor.families import build, mixture_families, small_config
from lit_moe.doctor.routing import Routed, routed
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import HFDecoder, auxiliary_losses, step_routers
from lit_moe.nn.hf_flops import flops_per_token
from lit_moe.nn.hf_gates import selection_biases

SEED, LENGTH = 0, 4096
#: Tokens of the two documents in a row.
DOCUMENTS = (10, 14)
#: The classes of gates that were known by name.
FORMER_GATES = ("MixtralTopKRouter", "OlmoeTopKRouter", "Qwen2MoeTopKRouter", "Qwen3MoeTopKRouter")
#: Steps and texts of the model that is trained with a begin of each text.
STEPS, TEXTS = 300, [f"{n} and {n + 1} are {2 * n + 1}. " * 2 for n in range(40)]
NOT_AGAIN = "not measured again"
RECORDED_FLOPS = {"gpt_oss": "4.8", "qwen3_next": "15.6"}


@dataclass(frozen=True)
class Shared:
    """A fault that families share.

    Args:
        fault: What it is.
        recorded: Number of families in which the trial found it, of 57.
        rule: The former rule in words.
        measure: Tells whether a family has the fault by the former rule, and what the present code does: pass, fail,
            refused or n/a. It takes the network, whose weights stay, and the small copy that it was built from.
    """

    fault: str
    recorded: int
    rule: str
    measure: Callable[[HFDecoder, Specimen], tuple[bool, str]]


def verdict(passes: bool) -> str:
    """Return the word for what passes or fails."""
    return "pass" if passes else "fail"


@torch.no_grad()
def documents(decoder: HFDecoder, specimen: Specimen) -> tuple[bool, str]:
    """Compare the second document of a row with it alone, where its positions restart, and in our network."""
    ids, (first, second) = specimen.tokens(1, sum(DOCUMENTS)), DOCUMENTS
    positions = torch.cat([torch.arange(first), torch.arange(second)])[None]
    model = decoder.eval().model
    alone = model(input_ids=ids[:, first:], use_cache=False).logits

    def differs(logits: Tensor) -> bool:
        return bool((logits[:, first:] - alone).norm() > 1e-4 * alone.norm())

    before = differs(model(input_ids=ids, position_ids=positions, use_cache=False).logits)
    numbers = torch.tensor([0] * first + [1] * second)[None]
    try:
        return before, verdict(not differs(decoder(ids, document_ids=numbers)))
    except UserError:
        return before, "refused"


@torch.no_grad()
def gates(decoder: HFDecoder, specimen: Specimen) -> tuple[bool, str]:
    """Look for gates of the classes once known; compare what gates count with what their experts are called with."""
    before = not any(type(module).__name__ in FORMER_GATES for module in decoder.modules())
    columns = {name: gate.router.n_experts for name, gate in decoder.watched.items()}
    if not columns:
        return before, "fail" if _takes_losses(specimen) else "refused"
    with routed(decoder.model, columns) as seen:
        decoder.eval().hidden(specimen.tokens(2, 24))
    counts = {name: gate.stats.counts for name, gate in decoder.watched.items() if gate.stats is not None}
    used = {name: _used(decoder, seen, name) for name in columns}
    return before, verdict(all(torch.equal(counts[name], used[name]) for name in columns))


def _takes_losses(specimen: Specimen) -> bool:
    """Tell whether a network takes a balance loss."""
    try:
        specimen.decoder(balance_weight=0.1)
    except UserError:
        return False
    return True


def _used(decoder: HFDecoder, seen: Routed, name: str) -> Tensor:
    """Return how many tokens go to each expert beside a gate; to those of the largest logits if it tells no others."""
    router = decoder.watched[name].router
    indices = seen.indices.get(name, seen.logits[name].topk(router.top_k).indices)
    return torch.bincount(indices.flatten(), minlength=router.n_experts)


@torch.no_grad()
def selection_bias(decoder: HFDecoder, specimen: Specimen) -> tuple[bool, str]:
    """Look for a selection bias, which no step moved; compare its move by one step with the rule."""
    model, moves = decoder.model, []
    for name in decoder.watched:
        moves += selection_biases(model.get_submodule(name), model.get_submodule(name.rpartition(".")[0]))
    if not moves:
        return False, "n/a"
    try:
        moving = specimen.decoder(selection_bias="loss_free", bias_rate=0.01).train()
    except UserError:
        return True, "refused"
    biases = {name: gate.router.bias.tensor.flatten().clone() for name, gate in moving.watched.items()}
    with routed(moving.model, {name: len(bias) for name, bias in biases.items()}) as seen:
        moving.hidden(specimen.tokens(2, 24))
    step_routers(moving)
    for name, bias in biases.items():
        load = _used(moving, seen, name).float()
        move = 0.01 * (load.mean() - load).sign()
        if not torch.allclose(moving.watched[name].router.bias.whole, bias + move - move.mean(), atol=1e-6):
            return True, "fail"
    return True, "pass"


def config_again(decoder: HFDecoder, specimen: Specimen) -> tuple[bool, str]:
    """Build the model from transformers' JSON of its config, as checkpoints kept it, and from what they keep now."""

    def builds(config: dict[str, Any]) -> bool:
        try:
            with torch.device("meta"):
                build(transformers.AutoConfig.for_model(**config))
        except Exception:  # whatever the checks of a config raise
            return False
        return True

    former = parse_json(specimen.config.to_json_string(use_diff=False), "The config", lenient=True)
    return not builds(former), verdict(builds(json.loads(json.dumps(decoder.describe()["config"]))))


def gradients(decoder: HFDecoder, specimen: Specimen) -> tuple[bool, str]:
    """Look for trained parameters without a gradient, for which two processes wait: transformers' own, and ours."""
    with torch.device("meta"):
        theirs = {name for name, parameter in build(specimen.config).named_parameters() if parameter.requires_grad}
    parameters = dict(decoder.model.named_parameters())
    ours = {name for name, parameter in parameters.items() if parameter.requires_grad}
    model = decoder.model.requires_grad_(True).train()
    model(input_ids=specimen.tokens(8, 24), use_cache=False).logits.sum().backward()
    # experts in a list get a gradient only where a token is sent to them
    lists = tuple(name for name, part in model.named_modules() if isinstance(part, nn.ModuleList))
    single = tuple(name for name in lists if name.endswith("experts"))
    idle = {name for name, each in parameters.items() if each.grad is None and not name.startswith(single)}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in ours).grad = None
    return bool(idle & theirs), verdict(not idle & ours)


def float32(decoder: HFDecoder, specimen: Specimen) -> tuple[bool, str]:
    """Look for what transformers keeps in float32 and the former rule did not; compare what it keeps with ours."""
    model = decoder.model
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        model.save_pretrained(folder)
        theirs = type(model).from_pretrained(folder, dtype=torch.bfloat16)
    keys = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    listed = {name for key in keys for name in getattr(model, key, None) or ()}
    kept = {name for name, parameter in theirs.named_parameters() if parameter.dtype == torch.float32}
    buffers = {name for name, buffer in theirs.named_buffers() if buffer.dtype == torch.float32}
    spared = {name for name in buffers if name.endswith("inv_freq") or not listed.isdisjoint(name.split("."))}
    ours = copy.deepcopy(decoder).to(torch.bfloat16).model
    tensors = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    exact = {name for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    return bool(kept | buffers - spared), verdict(exact == kept | buffers)


SHARED = (
    Shared("a document sees another one of its row", 16, "positions restart at each document", documents),
    Shared("no gate is found", 53, "the classes of four families are known by name", gates),
    Shared("the selection bias is never moved", 29, "it is left alone", selection_bias),
    Shared(
        *("bf16-true rounds weights that transformers keeps in float32", 11),
        *("buffers of rotary frequencies, and of modules that the model lists, are spared", float32),
    ),
    Shared(
        *("a trained model can be neither exported nor resumed", 2),
        *("a checkpoint keeps transformers' JSON of its config", config_again),
    ),
    Shared("two processes wait for gradients that never come", 3, "all parameters of a model are trained", gradients),
)


def llama_gradient() -> tuple[float, float]:
    """Return the size of the balance loss' gradient at Llama 4's gates: with scores taken for logits, and now.

    Both are shares of the size that autograd finds for the formula with sigmoid scores.
    """
    specimen = Specimen(small_config("llama4_text"), SEED)
    ids, decoder = specimen.tokens(2, 24), specimen.decoder(balance_weight=1.0).train()
    columns = {name: gate.router.n_experts for name, gate in decoder.watched.items()}
    with routed(decoder.model, columns) as seen:
        decoder.hidden(ids)
    former, right = [], []
    for name, logits in seen.logits.items():
        chosen = logits.topk(decoder.watched[name].router.top_k).indices
        load = torch.bincount(chosen.flatten(), minlength=columns[name]) / chosen.numel()
        scores = logits.sigmoid()  # Llama 4 returns those of the chosen experts, and 0 for the others
        returned = torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen))
        for losses, shares in ((former, returned.softmax(-1)), (right, scores / scores.sum(-1, keepdim=True))):
            losses.append(columns[name] * (load * shares.mean(0)).sum())
    weights = [decoder.model.get_submodule(name).weight for name in decoder.watched]
    sizes = [_gradient(loss, weights) for loss in (sum(former), sum(right), auxiliary_losses(decoder))]
    return sizes[0] / sizes[1], sizes[2] / sizes[1]


def _gradient(loss: Any, weights: Sequence[Tensor]) -> float:
    return float(torch.stack([part.norm() for part in torch.autograd.grad(loss, weights, retain_graph=True)]).norm())


@torch.no_grad()
def afmoe_counts() -> tuple[float, float]:
    """Return how many of the experts that AFMoE uses are counted: those of the largest logits, and now."""
    specimen = Specimen(small_config("afmoe"), SEED)
    decoder = specimen.decoder().eval()
    with routed(decoder.model, {name: gate.router.n_experts for name, gate in decoder.watched.items()}) as seen:
        decoder.hidden(specimen.tokens(8, 24))
    shares: list[list[float]] = [[], []]
    for name, used in seen.indices.items():
        stats = decoder.watched[name].stats
        assert stats is not None
        former = seen.logits[name].topk(used.shape[-1]).indices
        for share, chosen in zip(shares, (former, stats.indices), strict=True):
            share.append(float((used[:, :, None] == chosen[:, None]).any(-1).float().mean()))
    return sum(shares[0]) / len(shares[0]), sum(shares[1]) / len(shares[1])


def longcat_loss() -> tuple[float, float]:
    """Return LongCat's balance loss: by a hook on the layer that holds the gate's weight, and now."""
    specimen = Specimen(small_config("longcat_flash"), SEED)
    decoder, former = specimen.decoder(balance_weight=1.0).train(), []
    for name in decoder.watched:
        layer = decoder.model.get_submodule(f"{name}.classifier")
        layer.register_forward_hook(lambda module, args, output: former.append(float(output.softmax(-1).mean())))
    decoder.hidden(specimen.tokens(2, 24))
    return sum(former), float(auxiliary_losses(decoder).detach())


def tokenizer_with_begin() -> Tokenizer:
    """Return a tokenizer of bytes whose template puts a token of its own before a text, as Llama's does."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    definition = json.loads(Tokenizer.bytes().to_json())
    end = definition.pop("end_of_text")
    backend = Backend.from_str(json.dumps(definition))
    backend.add_special_tokens(["<s>"])
    begin = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = TemplateProcessing("<s> $A", pair="<s> $A <s> $B", special_tokens=[begin])
    return Tokenizer(json.loads(backend.to_str()), end)


def begin_losses(steps: int = STEPS) -> tuple[float, float]:
    """Return the mean loss of texts after end-of-text and after what the template puts, which it was trained with.

    Args:
        steps: Steps of training a small Llama on the texts.
    """
    tokenizer = tokenizer_with_begin()
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(SEED)
    model: Any = build(transformers.AutoConfig.for_model("llama", vocab_size=tokenizer.vocab_size, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    texts = [tokenizer.prompt(text) for text in TEXTS]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor([*text, tokenizer.end_of_text]) for text in texts], True, -1)
    for _ in range(steps):
        batch = ids[torch.randperm(len(ids))[:8]]
        _mean_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    former = ids.clone()
    former[:, 0] = tokenizer.end_of_text
    with torch.no_grad():
        return float(_mean_loss(model, former)), float(_mean_loss(model, ids))


def _mean_loss(model: Any, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids.clamp(min=0)[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1)


def flops() -> Iterator[list[str]]:
    """Yield the row of each published shape: by hand, as counted, and where all experts of a layer count."""
    for by_hand, config in PUBLISHED.items():
        with torch.device("meta"):
            model = build(transformers.AutoConfig.for_model(**config))
        stacks = [p for name, p in model.named_parameters() if p.dim() == 3 and "experts" in name]
        unused = sum(stack.numel() * (1 - model.config.num_experts_per_tok / len(stack)) for stack in stacks)
        counted, hand = flops_per_token(model, LENGTH), 2 * by_hand(LENGTH)
        former = counted + 2 * unused
        shown = [f"{value / 1e9:,.3f}" for value in (hand, counted, former)]
        said = RECORDED_FLOPS.get(config["model_type"], "")
        yield [config["model_type"], *shown, f"{counted - hand:.0f}", f"{former / hand:.1f}", said]


def walk(families: Sequence[str]) -> dict[str, dict[str, tuple[bool, str]]]:
    """Return of each shared fault, by family, whether it was there before, and what the present code does."""
    rows: dict[str, dict[str, tuple[bool, str]]] = {shared.fault: {} for shared in SHARED}
    for family in families:
        specimen = Specimen(small_config(family), SEED)
        decoder = specimen.decoder()
        for shared in SHARED:
            rows[shared.fault][family] = shared.measure(decoder, specimen)
        print(family, *(rows[shared.fault][family] for shared in SHARED), flush=True)
    return rows


def single() -> Iterator[list[str]]:
    """Yield the row of each fault of single models: what is measured, as recorded, before, and after."""
    shares = [f"{100 * share:.0f} %" for share in (*llama_gradient(), *afmoe_counts())]
    yield [
        "Llama 4: gradient of the balance loss, of its right size (scores taken for logits)",
        "5 %",
        *shares[:2],
    ]
    yield ["AFMoE: experts that are counted, of those used (chosen again without its bias)", "44 %", *shares[2:]]
    yield ["LongCat: balance loss at weight 1 (by a hook that is never called)", "0", *_numbers(longcat_loss())]
    losses = _numbers(begin_losses())
    yield [
        "A Llama trained with a begin of each text: its loss in nats (after end-of-text)",
        ".372, then .045",
        *losses,
    ]
    check = checks()["generation"]
    for family in ("minimax", "qwen4_exp_text", "kimi_linear"):
        now = found(check, Specimen(small_config(family), SEED)).verdict
        yield [f"{family}: text generated with a cache equals that without", "an error", NOT_AGAIN, now]
    now = found(checks()["flops"], Specimen(small_config("jetmoe"), SEED)).verdict
    yield ["jetmoe: FLOPs equal torch's counter, with gates named", "not equal", NOT_AGAIN, now]
    yield ["`lit-moe plan` of a config of transformers says that `hugging_face` is", "None", NOT_AGAIN, _plan_says()]


def _numbers(values: Sequence[float]) -> list[str]:
    return [f"{value:.3g}" for value in values]


def _plan_says() -> str:
    """Return what the verb plan says that `hugging_face` is, where a config was given."""
    import contextlib
    import io

    from lit_moe.cli import main

    given = '--model.init_args.hugging_face.config={"model_type": "mixtral"}'
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main(["plan", "--config", "configs/moe/quickstart/pretrain.yaml", given])
    return said.getvalue().partition("`hugging_face` is ")[2].partition(",")[0]


def page(families: Sequence[str]) -> list[str]:
    """Return the lines of the page.

    Args:
        families: Model types of transformers.
    """
    rows = walk(families)
    shared, lists = [], []
    for each in SHARED:
        of = rows[each.fault]
        had = [family for family, (before, _) in of.items() if before]
        told = ", ".join(f"{count} {word}" for word, count in Counter(after for _, after in of.values()).most_common())
        shared.append([each.fault, f"{each.recorded} of 57", each.rule, f"{len(had)} of {len(of)}", told])
        lists += ["", f"**{each.fault}**, before: {', '.join(had) or 'none'}."]
        others = [f"{name} ({after})" for name, (_, after) in of.items() if after not in ("pass", "n/a")]
        lists[-1] += f" Now: {', '.join(others)}." * bool(others)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    return [
        "# Mixtures of transformers, before and after",
        "",
        f"`{shlex.join(['python', *sys.argv])}`, {versions}.",
        "",
        *_HEAD.format(count=len(families)).splitlines(),
        "",
        "## Faults that families share",
        "",
        *markdown_table(["fault", "recorded", "former rule", "before", "after"], shared),
        "",
        "## Faults of single models",
        "",
        *markdown_table(["measured", "recorded", "before", "after"], list(single())),
        "",
        "## FLOPs of published shapes",
        "",
        *_FLOPS.format(length=f"{LENGTH:,}").splitlines(),
        "",
        *markdown_table(
            ["shape", "by hand", "now", "before", "now - by hand", "before / by hand", "recorded"], list(flops())
        ),
        "",
        "## Which families",
        *lists,
    ]


_HEAD = """A trial of lit_moe on 57 causal language models with mixtures of transformers 5.23 found these faults. They
are measured again on small random copies of the {count} that are found now, as `lit-moe doctor` makes them.

- *Recorded*: what the trial found, with small models of its own.
- *Before*: what the former rule does on transformers' own model; of single models the rule is in brackets.
- *After*: what the present code does with the same input, compared with an independent reference. The checks of
  [families.md](families.md) ask more of it.

Shares and losses of single models depend on their random weights, so the small copies show a fault in another size than
the trial did. What is not measured again would need the code of that time."""
_FLOPS = """Of a token in a sequence of {length}, one forward pass, in 10⁹, by the values of each published
`config.json`. By hand: the formulas in `tests/moe/nn/published_flops.py`. Before: all experts of a layer count, as
where its gates were not known. How much that is too much depends on the length of the sequence, which was not
recorded with the ratios."""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Markdown file to be written; without it the page is printed.")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    text = "\n".join(page(list(mixture_families()))) + "\n"
    if output is None:
        print(text)
    else:
        atomic_write(output, text)


if __name__ == "__main__":
    main()
