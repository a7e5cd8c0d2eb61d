"""Texts that an attack or a spell checker changed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from default_detector.texts import Text, plain
from lit_detect.formats.litshift import read_records
from lit_detect.records import MACHINE

_WORD = re.compile(r"\b[a-z]{3,}(?:'[a-z]+)?\b")


def attacked(folder: Path, per_domain: int = 25) -> list[Text]:
    """Return texts from files that ``lit-detect attack`` wrote, each named after its attack; clean.jsonl has none."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        seen: Counter[str] = Counter()
        for record in read_records(path):
            seen[record.domain] += 1
            if seen[record.domain] <= per_domain:
                about = record.domain, record.source, record.pair_id
                rows.append(Text(plain(record.text), MACHINE, *about, attack=path.stem))
    return rows


def spell_checked(texts: dict[str, list[Text]], count: int = 80) -> list[tuple[Text, Text]]:
    """Return human texts with what a spell checker (pyspellchecker, one letter apart) makes of them."""
    from spellchecker import SpellChecker

    checker = SpellChecker(distance=1)
    known: dict[str, str] = {}

    def corrected(match: re.Match[str]) -> str:
        word = match.group()
        if word not in known:
            known[word] = (checker.correction(word) or word) if checker.unknown([word]) else word
        return known[word]

    return [
        (row, replace(row, text=_WORD.sub(corrected, row.text), attack="spell_checked"))
        for domain in ("essays", "writing", "xsum")
        for row in texts[domain][:count]
    ]
