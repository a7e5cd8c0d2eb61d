"""Scoring documents beside one document at a time through transformers: time, and memory of a long document.

    python benchmarks/scoring.py --rounds 5 --threads 2 --output docs/results/scoring.json

writes the page scoring.md beside the numbers. All ways use the same SmolLM2 in bfloat16, tokens and cap. What ours is
compared with is the straightforward code for each score: a forward pass per document that returns the logits of all its
tokens, then what the score's published code does with them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import conditions
from side_by_side import Contender, OtherWork, arguments, finish, markdown, measure, new_result, progress, ratios
from torch import Tensor

from lit_core.corpora import Austen
from lit_core.files.paths import atomic_write
from lit_core.lm.language_model import HuggingFaceLM, LanguageModel
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.scoring.causal import Quantity, score_tokens

OURS, SINGLY, PASSES = "ours", "one at a time", "forward passes alone"
AIM = 4
LENGTHS = {"40": 64, "160": 24, "480": 8}  # tokens on average, and documents
LONG = 4096


def log_probabilities(logits: Tensor, tokens: Tensor) -> None:
    """Log-probability of each token."""
    logits.float().log_softmax(-1).gather(-1, tokens[:, None])


def ranks(logits: Tensor, tokens: Tensor) -> None:
    """Rank of each token by sorting the vocabulary, as GLTR's published code does."""
    order = np.argsort(-logits.float().softmax(-1).numpy())
    for row, token in zip(order, tokens.tolist(), strict=True):
        np.where(row == token)[0][0]


def curvature(logits: Tensor, tokens: Tensor) -> None:
    """Log-probability, its mean and variance, as Fast-DetectGPT's published code has them."""
    log_probs, probs = logits.float().log_softmax(-1), logits.float().softmax(-1)
    log_probs.gather(-1, tokens[:, None])
    mean = (probs * log_probs).sum(-1)
    (probs * log_probs.square()).sum(-1) - mean.square()


SCORES: dict[str, tuple[tuple[Quantity, ...], Callable[[Tensor, Tensor], None]]] = {
    "log-likelihood": (("log_prob",), log_probabilities),
    "GLTR": (("rank",), ranks),
    "Fast-DetectGPT": (("log_prob", "expected", "variance"), curvature),
}


def model(quick: bool) -> HuggingFaceLM:
    """Return SmolLM2, or a tiny random model."""
    if not quick:
        from lit_core.lm.pretrained import smollm2

        return smollm2(dtype="bfloat16")
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=264, max_position_embeddings=LONG, **sizes)
    return HuggingFaceLM(LlamaForCausalLM(config).bfloat16().eval(), Tokenizer.bytes())


def documents(lm: LanguageModel, mean: int, count: int) -> list[str]:
    """Return texts whose lengths in tokens are spread evenly from half the mean to one and a half of it."""
    text = "\n\n".join(document.text for _, document in zip(range(40), Austen().documents(), strict=False))
    ids = lm.tokenizer.encode(text)
    lengths = np.random.default_rng(0).permutation(np.linspace(mean / 2, 3 * mean / 2, count).astype(int))
    starts = np.cumsum([0, *lengths[:-1]])
    return [lm.tokenizer.decode(ids[start : start + size]) for start, size in zip(starts, lengths, strict=True)]


@torch.no_grad()
def singly(lm: LanguageModel, texts: Sequence[str], finish_score: Callable[[Tensor, Tensor], None]) -> None:
    """Score texts the straightforward way, with the attention that transformers takes by default."""
    network: Any = lm.module
    ours = network.config._attn_implementation
    network.set_attn_implementation("sdpa")
    for text in texts:
        ids = torch.tensor([[lm.tokenizer.end_of_text, *lm.tokenizer.encode(text)]])
        finish_score(network(ids, use_cache=False).logits[0, :-1], ids[0, 1:])
    network.set_attn_implementation(ours)


@torch.no_grad()
def passes(lm: LanguageModel, texts: Sequence[str]) -> None:
    """Run the network without its output layer over the texts, one at a time: the work that every score needs."""
    for text in texts:
        lm.hidden(torch.tensor([[lm.tokenizer.end_of_text, *lm.tokenizer.encode(text)]]))


def compare(lm: LanguageModel, mean: int, count: int, name: str, rounds: int, warm_up: int) -> dict[str, Any]:
    """Time the ways to get one score of documents of one length."""
    texts = documents(lm, mean, count)
    quantities, straightforward = SCORES[name]
    steps: dict[str, Callable[[Any], None]] = {
        OURS: lambda _: [score_tokens(lm, texts, 1024, quantities)] and None,
        SINGLY: lambda _: singly(lm, texts, straightforward),
        PASSES: lambda _: passes(lm, texts),
    }
    others = OtherWork()
    seconds = measure([Contender(way, step, lambda: None) for way, step in steps.items()], rounds, warm_up)
    return {
        "score": name,
        "tokens": mean,
        "documents": count,
        "seconds": seconds,
        "ratios": ratios(seconds, OURS),
        "cores_busy_with_others": others.cores(),
    }


def child(way: str, quick: bool, threads: int) -> None:
    """Score one long document once and print by how much the process grew, as JSON."""
    torch.set_num_threads(threads)
    lm = model(quick)
    text = lm.tokenizer.decode(lm.tokenizer.encode("\n\n".join(d.text for d in Austen().documents()))[: LONG - 1])
    short = text[:200]
    score, quantities = curvature, SCORES["Fast-DetectGPT"][0]
    steps: dict[str, Callable[[str], Any]] = {
        OURS: lambda given: score_tokens(lm, [given], LONG - 1, quantities),
        SINGLY: lambda given: singly(lm, [given], score),
        PASSES: lambda given: passes(lm, [given]),
    }
    steps[way](short)  # whatever is set up once
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far, which is that of loading
    before = _kibibytes("VmRSS")
    steps[way](text)
    print(json.dumps({"mebibytes": (_kibibytes("VmHWM") - before) / 2**10}))


def _kibibytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def memory(quick: bool) -> dict[str, float]:
    """Return the memory that each way takes for a long document, each in a process of its own, in MiB."""
    found = {}
    for way in (OURS, SINGLY, PASSES):
        progress(f"memory: {way}")
        given = json.dumps([way, quick, torch.get_num_threads()])
        done = subprocess.run(
            [sys.executable, __file__, "--child", given], stdout=subprocess.PIPE, text=True, check=True
        )
        found[way] = json.loads(done.stdout.splitlines()[-1])["mebibytes"]
    return found


def page(result: dict[str, Any]) -> str:
    """Return the page scoring.md."""
    rows = []
    for case in result["cases"]:
        speed = case["documents"] / statistics.median(case["seconds"][OURS])
        cells = [case["ratios"][way] for way in (SINGLY, PASSES)]
        rows.append(
            [
                f"{case['score']}, {case['tokens']} tokens",
                f"{speed:.1f}",
                *(f"{cell['ratio']:.2f} ±{cell['spread']:.2f}" for cell in cells),
            ]
        )
    found = [case["ratios"][SINGLY]["ratio"] for case in result["cases"]]
    met = sum(ratio >= AIM for ratio in found)
    grown = result["memory"]
    return f"""# Scoring documents

SmolLM2-135M-Instruct in bfloat16, vocabulary 49,152; passages of Austen, whose lengths are spread from half the named
number of tokens to one and a half of it.

{markdown(["", "documents/s", f"{SINGLY} / ours", f"{PASSES} / ours"], rows)}

*One at a time*: a forward pass per document with the logits of all tokens, then what the score's published code does
with them: log-softmax; for GLTR the vocabulary sorted at each token; for Fast-DetectGPT mean and variance over it.
*Forward passes alone*: ours without output layer and score, one document at a time. The aim of {AIM} times faster than
one at a time is met in {met} of {len(found)} rows.

Where the time goes: to the network. Its passes alone, which every way to these numbers needs, take the share of ours
that the last column says, and a processor is filled by the products of a hundred tokens, so that a batch of such
documents takes about as long as one after the other. Short documents gain more, whose passes read all weights for few
tokens. Most of the rest is the output layer, a fifth of all multiplications. What ours saves is what comes after it, by
working on logits that stay in the cache and without a sort, and half of the attention, which it does in blocks; with
the same numbers no way can be {AIM} times as fast as one document at a time where the network takes more than a quarter
of that.

## Memory

One document of {LONG:,} tokens, Fast-DetectGPT; what the process grows by, above the loaded model.

{markdown(["", "MiB"], [[way, f"{grown[way]:,.0f}"] for way in (OURS, SINGLY, PASSES)])}

Logits of all tokens alone are {LONG * 49152 * 4 / 2**20:,.0f} MiB in float32; ours holds 24 MiB of them at a time.

{conditions(result)}
"""


def main() -> None:
    """Compare, write the numbers and the page."""
    if sys.argv[1:2] == ["--child"]:
        child(*json.loads(sys.argv[2]))
        return
    options = arguments(__doc__)
    result = new_result("scoring", options, ("torch", "transformers", "numpy"))
    lm = model(options.quick)
    for name in SCORES:
        for mean, count in LENGTHS.items():
            progress(f"{name}, {mean} tokens")
            size = 3 if options.quick else count
            result["cases"].append(compare(lm, int(mean), size, name, result["rounds"], result["warm_up"]))
    result["memory"] = memory(options.quick)
    finish(result, options.output)
    text = page(result)
    print(text)
    if options.output:
        atomic_write(Path(options.output).with_name("scoring.md"), text)


if __name__ == "__main__":
    main()
