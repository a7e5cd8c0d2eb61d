"""Claims, and the base class of the criteria that decide them by the results of a study."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lit_core.study.findings import Finding
from lit_core.study.rows import ResultRow


class Criterion(ABC):
    """Decides a claim, or a part of one, by the rows of the results."""

    @abstractmethod
    def find(self, rows: Sequence[ResultRow]) -> Finding:
        """Return the finding for all rows of a study."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns that it reads, of criteria inside it as well.

        These are its ``metric``, ``x``, ``y`` and ``budget``, and the labels that its other attributes name.
        """
        names: list[str] = []
        for attribute, value in vars(self).items():
            if attribute in ("metric", "x", "y", "budget"):
                names.append(value)
            elif isinstance(value, Mapping | list | tuple):
                for each in [value] if isinstance(value, Mapping) else value:
                    names += each.columns if isinstance(each, Criterion) else [each] if isinstance(each, str) else each
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Claim:
    """A claim and the criteria that decide it.

    Args:
        text: The claim in one sentence.
        criteria: All must hold: one that fails decides against the claim, one that is undecided leaves it undecided.
        missing: What would be needed to test the claim, where it can't be tested here.
    """

    text: str
    criteria: list[Criterion] = field(default_factory=list)
    missing: str | None = None

    def findings(self, rows: Sequence[ResultRow]) -> list[Finding]:
        """Return the finding of each criterion."""
        return [criterion.find(rows) for criterion in self.criteria]
