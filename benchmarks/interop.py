"""Largest difference of logits between transformers' models and ours, after importing and after exporting.

    python benchmarks/interop.py --output docs/results/interop.md

Small random models that transformers makes itself, three shapes of each architecture that can be imported, in float32.
The hooks column compares the experts that transformers' gates choose, as callbacks read them there, with ours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "moe" / "interop"))

from hugging_face import SHAPES, load, logits, make, save, tokens

from lit_core.files.paths import atomic_write
from lit_moe.interop import export_model, import_model
from lit_moe.lm import load_module
from lit_moe.nn import moe_layers

TOKENS = (4, 60)


def compare(family: str, number: int) -> tuple[float, float, tuple[int, int]]:
    """Return the largest logit differences of import and export, and how many choices of experts differ, of all."""
    theirs, ids = make(family, number), tokens(*TOKENS)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None):
        folder = Path(name)
        save(theirs, folder / "theirs")
        import_model(str(folder / "theirs"), str(folder / "ours.ckpt"))
        ours = load_module(folder / "ours.ckpt")[0].decoder.eval()
        export_model(str(folder / "ours.ckpt"), str(folder / "again"))
        again = load(folder / "again")
    gates = moe_layers(theirs)
    wanted = logits(theirs, ids)
    differences = [float((logits(model, ids) - wanted).abs().max()) for model in (ours, again)]
    chosen = [
        (gate.stats.indices, layer.stats.indices)
        for gate, layer in zip(gates.values(), moe_layers(ours).values(), strict=True)
    ]
    other = sum(int((one.sort(-1).values != two.sort(-1).values).sum()) for one, two in chosen)
    return differences[0], differences[1], (other, sum(one.numel() for one, _ in chosen))


def page() -> str:
    """Return the page with its table."""
    version, (rows, length) = transformers.__version__, TOKENS
    lines = [
        "# Interop",
        "",
        "`python benchmarks/interop.py --output docs/results/interop.md`: small random models that transformers",
        f"{version} makes itself, three shapes of each architecture, in float32, on {rows} rows of {length} tokens.",
        "Import: the largest absolute difference between transformers' logits and those of the imported decoder.",
        "Export: between transformers' logits before, and after import and export. Hooks: how many choices of experts,",
        "as callbacks read them from transformers' gates, differ from the imported decoder's, of all.",
        "",
        "| architecture | import | export | hooks |",
        "|---|---|---|---|",
    ]
    for family, shapes in SHAPES.items():
        found = [compare(family, number) for number in range(len(shapes))]
        other, total = (sum(row[2][side] for row in found) for side in (0, 1))
        hooks = f"{other} of {total:,}" if total else "dense"
        lines.append(
            f"| {family} | {max(row[0] for row in found):.1e} | {max(row[1] for row in found):.1e} | {hooks} |"
        )
        print(lines[-1], flush=True)
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="Markdown file to be written; without it only the table is printed.")
    output = parser.parse_args().output
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    text = page()
    if output is not None:
        atomic_write(Path(output), text)


if __name__ == "__main__":
    main()
