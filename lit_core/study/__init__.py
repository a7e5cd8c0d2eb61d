"""Studies: a grid of runs over seeds, tables with intervals, and a verdict for each claim."""

from lit_core.statistics.interval import Interval
from lit_core.statistics.means import kendall, spearman, t_interval, t_quantile
from lit_core.study.claims import Claim, Criterion
from lit_core.study.criteria import AtLeast, BudgetRatio, Correlation, Level, PairedGain
from lit_core.study.figures import Figure
from lit_core.study.findings import Finding, verdict
from lit_core.study.grid import Cell, Grid, Size
from lit_core.study.parts import Given, Part, Shared
from lit_core.study.report import Table
from lit_core.study.rows import ResultRow
from lit_core.study.study import study_verb

__all__ = [
    "AtLeast",
    "BudgetRatio",
    "Cell",
    "Claim",
    "Correlation",
    "Criterion",
    "Figure",
    "Finding",
    "Given",
    "Grid",
    "Interval",
    "Level",
    "PairedGain",
    "Part",
    "ResultRow",
    "Shared",
    "Size",
    "Table",
    "kendall",
    "spearman",
    "study_verb",
    "t_interval",
    "t_quantile",
    "verdict",
]
