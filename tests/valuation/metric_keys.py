"""Metric keys of lit-valuation as docs/contracts.md lists them, and as a run wrote them."""

import csv
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "contracts.md"


def documented(*by):
    """Return the keys that these classes log, with {source}, {class} and {column} for names."""
    keys = set()
    for line in DOCS.read_text().split("## Metric keys of lit-valuation")[1].split("\n## ")[0].splitlines():
        if line.startswith("| `"):
            names, _, classes = line.strip("| ").split(" | ")
            keys |= set(re.findall(r"`([^`]+)`", names)) if set(by) & set(re.findall(r"`(\w+)`", classes)) else set()
    return keys


def logged(path):
    """Return the keys of a metrics.csv."""
    with Path(path).open(newline="") as file:
        return set(next(csv.reader(file))) - {"step", "epoch"}
