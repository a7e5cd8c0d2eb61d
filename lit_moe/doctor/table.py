"""The findings of models as a table in Markdown, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lit_core.files.tables import markdown_table
from lit_moe.doctor.check import Finding

Findings = Mapping[str, Mapping[str, Finding]]
"""Finding by model and check."""


def as_markdown(findings: Findings, purposes: Mapping[str, str], unbuilt: Mapping[str, str]) -> list[str]:
    """Return a table of models by checks, how often each verdict is found, and the reasons.

    Args:
        findings: Finding by model and check.
        purposes: What each check compares, by its name.
        unbuilt: Why no small copy of a model can be built, by model.
    """
    names = list(dict.fromkeys(check for row in findings.values() for check in row))
    rows = [[model, *(row[name].verdict if name in row else "" for name in names)] for model, row in findings.items()]
    lines = markdown_table(["model", *names], rows)
    for name in names:
        counts = Counter(row[name].verdict for row in findings.values() if name in row)
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        lines += ["", f"**{name}**: {said}. {purposes.get(name, '')}".rstrip()]
        reasons: dict[tuple[str, str], list[str]] = {}
        for model, row in findings.items():
            if name in row and row[name].reason:
                reasons.setdefault((row[name].verdict, row[name].reason), []).append(model)
        lines += [f"- {verdict}, {', '.join(models)}: {reason}" for (verdict, reason), models in reasons.items()]
    if unbuilt:
        lines += ["", "Of these no small copy can be built:"]
        lines += [f"- {model}: {reason}" for model, reason in unbuilt.items()]
    return lines


def as_plain(findings: Findings, unbuilt: Mapping[str, str]) -> dict[str, Any]:
    """Return the findings as plain values for JSON.

    Args:
        findings: Finding by model and check.
        unbuilt: Why no small copy of a model can be built, by model.
    """
    rows = {
        model: {name: {"verdict": finding.verdict, "reason": finding.reason} for name, finding in row.items()}
        for model, row in findings.items()
    }
    return {"models": rows, "unbuilt": dict(unbuilt)}
