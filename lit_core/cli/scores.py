"""Tables of what a command of Lightning has measured, for the screen."""

from __future__ import annotations

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

    A validation after n optimizer steps is logged at step n - 1, one before the first step at step 0.

    Args:
        logged: Pairs of logged step and value, by key.
        shown: The metrics of each source to show, with ``min`` or ``max`` for what is best.

    Example:
        >>> print("\n".join(best_table({"val/austen/loss": [(0, 7.5), (11, 3.0), (23, 3.25)]}, {"loss": min})))
        validation   start  step 24  best      at
        austen loss    7.5     3.25     3  step 12
    """
    lines: list[list[str]] = []
    steps: list[str] = []
    for key, pairs in logged.items():
        stage, _, rest = key.partition("/")
        source, _, metric = rest.partition("/")
        if stage != "val" or metric not in shown or not pairs:
            continue
        best = shown[metric](value for _, value in pairs)
        at = next(step for step, value in pairs if value == best)
        steps = steps or [_after(pairs[index][0]) for index in (0, -1)]
        values = (f"{value:.4g}" for value in (pairs[0][1], pairs[-1][1], best))
        lines.append([f"{source} {metric}", *values, _after(at)])
    left_out = [[f"and {len(lines) - _SHOWN} more in metrics.csv"]] if len(lines) > _SHOWN else []
    return text_table([["validation", *steps, "best", "at"], *lines[:_SHOWN], *left_out]) if lines else []


def _after(logged: int) -> str:
    return f"step {logged + 1}" if logged else "start"
