"""Generation beside transformers' own `generate`: tokens per second at the same model, batch and settings.

    python benchmarks/generation.py --rounds 3 --warm-up 1 --output docs/results/generation.json

writes the page generation.md beside the numbers. The model is SmolLM2-135M-Instruct, the prompts are novels. Before the
timing, the greedy continuations of both are compared.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from report import conditions
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
from torch import Tensor

from lit_core.corpora import Austen
from lit_core.files.paths import atomic_write
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.pretrained import smollm2, smollm2_folder

OURS, THEIRS = "ours", "transformers"
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
SETTINGS: dict[str, dict[str, Any]] = {
    "pure": {},
    "top-k 40, T 0.7": {"top_k": 40, "temperature": 0.7},
    "nucleus 0.96": {"top_p": 0.96},
    "greedy, penalty 1.2": {"temperature": 0, "repetition_penalty": 1.2},
}
SIZES = [{"batch": 16, "prompt": 32, "new": 128}, {"batch": 64, "prompt": 32, "new": 128}]
QUICK = [{"batch": 2, "prompt": 4, "new": 3}]


def prompts(lm: HuggingFaceLM, size: dict[str, int]) -> list[list[int]]:
    """Return the beginnings of stretches of a novel."""
    ids = lm.tokenizer.encode(next(Austen().documents()).text)
    step = (len(ids) - size["prompt"]) // size["batch"]
    return [ids[step * row : step * row + size["prompt"]] for row in range(size["batch"])]


def ours(lm: HuggingFaceLM, size: dict[str, int], setting: dict[str, Any], given: list[list[int]]) -> list[list[int]]:
    """Continue as this project does."""
    return lm.generate_ids(given, max_new_tokens=size["new"], batch_size=size["batch"], stop_at_end=False, **setting)


def theirs(model: Any, size: dict[str, int], setting: dict[str, Any], given: list[list[int]]) -> list[list[int]]:
    """Continue as transformers does."""
    options = {"top_k": 0, "top_p": 1.0, "temperature": 1.0} | setting
    sampled = options["temperature"] > 0
    if not sampled:
        options = {"repetition_penalty": options["repetition_penalty"]}
    ids = torch.tensor(given)
    with torch.no_grad():
        out: Tensor = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=sampled,
            max_new_tokens=size["new"],
            min_new_tokens=size["new"],
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )
    return out[:, ids.shape[1] :].tolist()


def compare(
    lm: HuggingFaceLM, model: Any, dtype: str, size: dict[str, int], name: str, result: dict[str, Any]
) -> dict[str, Any]:
    """Time both under one setting."""
    progress(f"{dtype}, batch {size['batch']}, {name}")
    given, others = prompts(lm, size), OtherWork()
    ways = {OURS: functools.partial(ours, lm), THEIRS: functools.partial(theirs, model)}
    contenders = [
        Contender(label, functools.partial(_run, way, size, SETTINGS[name]), lambda: given)
        for label, way in ways.items()
    ]
    seconds = measure(contenders, result["rounds"], result["warm_up"])
    return {
        "dtype": dtype,
        **size,
        "setting": name,
        "seconds": seconds,
        "ratios": ratios(seconds, OURS),
        "cores_busy_with_others": others.cores(),
    }


def _run(way: Any, size: dict[str, int], setting: dict[str, Any], given: list[list[int]]) -> None:
    way(size, setting, given)


def same_greedy(lm: HuggingFaceLM, model: Any, size: dict[str, int]) -> float:
    """Return the share of rows that both continue greedily in the same way; rounding parts the others."""
    setting, given = SETTINGS["greedy, penalty 1.2"], prompts(lm, size)
    one, other = ours(lm, size, setting, given), theirs(model, size, setting, given)
    return sum(mine == yours for mine, yours in zip(one, other, strict=True)) / len(one)


def page(result: dict[str, Any]) -> str:
    """Return the page generation.md."""
    rows = []
    for case in result["cases"]:
        tokens = case["batch"] * case["new"]
        speeds = {name: tokens / found["milliseconds"] * 1000 for name, found in case["ratios"].items()}
        rows.append(
            [
                case["setting"],
                case["dtype"],
                str(case["batch"]),
                f"{speeds[OURS]:,.0f}",
                f"{speeds[THEIRS]:,.0f}",
                cell(case["ratios"][THEIRS]),
            ]
        )
    size = result["cases"][0]
    header = ["", "numbers", "batch", "ours, tokens/s", "transformers, tokens/s", "transformers' time / ours"]
    same = ", ".join(f"{share:.0%} in {dtype}" for dtype, share in result["same_greedy"].items())
    return f"""# Generation

Written by `benchmarks/generation.py`. SmolLM2-135M-Instruct continues {size["prompt"]} tokens of a novel by
{size["new"]}; nothing stops earlier. A cell of the last column is the median of the rounds' ratios, ± half their
interquartile range; above 1 ours is faster.

{markdown(header, rows)}

Rows of a batch that both continue greedily in exactly the same way: {same}; rounding parts the others.

What ours does otherwise: a token is drawn from the cumulative distribution in the order of the ids, so that pure
sampling sorts nothing, top-k looks for its threshold alone, and nucleus sorts values without their places; keys and
values stand in buffers that double, so that a new token copies only itself; the query heads that share keys are read
together where one token is new.

{conditions(result)}
"""


def main() -> None:
    """Compare, write the numbers and the page."""
    from transformers import AutoModelForCausalLM

    options = arguments(__doc__)
    result = new_result("generation", options, ("torch", "transformers", "numpy"))
    result["same_greedy"] = {}
    sizes = QUICK if options.quick else SIZES
    for dtype in precisions(list(DTYPES), options.quick):
        lm = smollm2(dtype=DTYPES[dtype])  # type: ignore[arg-type]
        model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=getattr(torch, DTYPES[dtype])).eval()
        result["same_greedy"][dtype] = same_greedy(lm, model, sizes[0])
        for size in sizes if dtype == "bf16" or options.quick else sizes[:1]:
            for name in SETTINGS:
                result["cases"].append(compare(lm, model, dtype, size, name, result))
    finish(result, options.output)
    text = page(result)
    print(text)
    if options.output:
        atomic_write(Path(options.output).with_name("generation.md"), text)


if __name__ == "__main__":
    main()
