"""Attacks whose results are stored for all cells of a study."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

from lit_core.files.json_files import read_json
from lit_core.files.paths import atomic_write, data_root
from lit_core.files.remade import read_or_set_aside
from lit_core.study.cells import code_version
from lit_core.study.parts import Part, Shared
from lit_detect.attacks import Attack, Attacked


class AttackOnDisk(Attack):
    """An attack that queries no detector; its results are stored below the data root, for other cells.

    Args:
        described: The attack.
        shared: Language models that attacks share.
    """

    def __init__(self, described: Part[Attack], shared: Shared[Any]) -> None:
        self._attack = described.build(shared)
        self.name = self._attack.name
        digest = hashlib.sha256(f"{described.text} {code_version('lit_detect')}".encode()).hexdigest()[:16]
        self._folder = data_root() / "detect" / "attacked" / digest

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text, unless the result is stored already; see `Attack`."""
        path = self._folder / f"{hashlib.sha256(f'{seed} {text}'.encode()).hexdigest()[:24]}.json"
        if path.is_file():
            stored: Attacked | None = read_or_set_aside(path, partial(read_json, path, Attacked))
            if stored is not None:
                return stored
        attacked = self._attack(text, seed)
        plain = vars(attacked) | {"edits": [vars(e) for e in attacked.edits], "meta": dict(attacked.meta)}
        atomic_write(path, json.dumps(plain, ensure_ascii=False))
        return attacked
