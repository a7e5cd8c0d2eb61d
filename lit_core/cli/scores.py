"""Tables of what a command of Lightning has measured, for the screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from lit_core.files.tables import text_table

#: Rows of a table on the screen.
_SHOWN = 8


def score_table(metrics: Mapping[str, float]) -> list[str]:
    r"""Return a table of the metrics ``{stage}/{source}/{metric}``: a row per source, a column per metric.

    Args:
        metrics: Values by key; keys of another form are left out.

    Example:
        >>> print("\n".join(score_table({"test/a/loss": 3.25, "test/b/loss": 2.5, "test/a/router/mri": 0.5})))
        test  loss
        a     3.25
        b      2.5
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in metrics.items():
        if key.count("/") == 2:
            stage, source, metric = key.split("/")
            rows.setdefault((stage, source), {})[metric] = value
    columns = sorted({metric for row in rows.values() for metric in row})
    if not columns:
        return []
    lines = [[next(iter(rows))[0], *columns]]
    for (_, source), row in rows.items():
        lines.append([source, *(f"{row[name]:.4g}" if name in row else "-" for name in columns)])
    return text_table(lines)


def best_table(
    logged: Mapping[str, Sequence[tuple[int, float]]],
    shown: Mapping[str, Callable[[Iterable[float]], float]],
) -> list[str]:
    r"""Return a table of validations in a training: the first, the last and the best value of each source and metric.

    A validation after n optimizer steps is logged at step n - 1, one before the first step at step 0. Of a single
    validation there is one column. What is nan is never the best.

    Args:
        logged: Pairs of logged step and value, by key.
        shown: The metrics of each source to show, with ``min`` or ``max`` for what is best.

    Example:
        >>> print("\n".join(best_table({"val/austen/loss": [(0, 7.5), (11, 3.0), (23, 3.25)]}, {"loss": min})))
        validation   start  step 24  best       at
        austen loss    7.5     3.25     3  step 12
    """
    validated: dict[str, Sequence[tuple[int, float]]] = {}
    for key, pairs in logged.items():
        stage, _, rest = key.partition("/")
        if stage == "val" and rest.partition("/")[2] in shown and pairs:
            validated[rest] = pairs
    if not validated:
        return []
    first = min(pairs[0][0] for pairs in validated.values())
    last = max(pairs[-1][0] for pairs in validated.values())
    rows = [["validation", _after(first), *([_after(last), "best", "at"] if last > first else [])]]
    for rest, pairs in list(validated.items())[:_SHOWN]:
        source, _, metric = rest.partition("/")
        known = [(value, step) for step, value in pairs if not math.isnan(value)]
        best = shown[metric](value for value, _ in known) if known else math.nan
        at = next((_after(step) for value, step in known if value == best), "-")
        ends = [dict(pairs).get(step, math.nan) for step in (first, last)]
        cells = [*(f"{value:.4g}" for value in (*ends, best)), at]
        rows.append([f"{source} {metric}", *(cells if last > first else cells[:1])])
    if len(validated) > _SHOWN:
        rows.append([f"and {len(validated) - _SHOWN} more in metrics.csv"])
    return text_table(rows)


def _after(logged: int) -> str:
    return f"step {logged + 1}" if logged else "start"
