"""What `test` and `validate` answer on the screen: accuracy or r2 on all and on hard cases, beside those before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lit_core.cli.former_test import former_test, how_to_get, parent_of, where_from
from lit_core.cli.lit_cli import LitCLI
from lit_core.files.tables import text_table
from lit_core.lightning.checkpoint import checkpoint_facts

#: Rows on the screen: the most sets.
_SHOWN = 8


def answer_lines(metrics: Mapping[str, float], before: Mapping[str, float], where: Sequence[str]) -> list[str]:
    """Return at most 12 lines of at most 80 columns.

    Args:
        metrics: Values by key, of ``val`` or ``test``.
        before: Those of the test with which they are compared; empty if there is none.
        where: Sentences that say where those come from, or how to get some.
    """
    scores = {key: value for key, value in metrics.items() if key.endswith(("/accuracy", "/hard_accuracy", "/r2"))}
    head = "r2, share of variance explained" if any(key.endswith("/r2") for key in scores) else "accuracy, 0 to 1"
    rows = [[head, *(["before", "after", "difference"] if before else ["after"])]]
    for key, after in list(scores.items())[:_SHOWN]:
        source, metric = key.split("/")[1:]
        name = "all samples" if source == "all" else f"those of group {source}"
        name = f"{name}, hard classes" if metric == "hard_accuracy" else name
        name = name if len(name) <= 40 else f"…{name[-39:]}"
        compared = [f"{before[key]:.3f}", f"{after:.3f}", f"{after - before[key]:+.3f}"] if key in before else None
        rows.append([name, *(compared or [*(["-"] if before else []), f"{after:.3f}"])])
    return [*text_table(rows), *where] if scores else []


def answer(cli: LitCLI) -> list[str]:
    """Return the lines for a command that has run."""
    metrics = {key: float(value) for key, value in cli.trainer.callback_metrics.items()}
    ckpt_path = cli.config[cli.subcommand].get("ckpt_path")
    checkpoint = checkpoint_facts(ckpt_path) if ckpt_path else {}
    if cli.subcommand != "test" or cli.run_folder is None:
        return answer_lines(metrics, {}, [])
    before, parent = former_test(checkpoint, cli.run_folder, ("root", "party")), parent_of(checkpoint)
    return answer_lines(metrics, before, where_from(parent) if before else how_to_get(parent))
