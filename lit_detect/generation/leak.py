"""Leak test of generated texts: detection by formatting or characters alone, for each setting of the generation."""

from __future__ import annotations

from collections.abc import Sequence

from lit_core.errors import UserError
from lit_core.files.tables import text_table
from lit_core.screen import on_screen
from lit_core.statistics.interval import Interval
from lit_detect.functional.shape import LEAK, character_auroc
from lit_detect.records import HUMAN, MACHINE, Record

Setting = tuple[str, str, int]


def leak_test(records: Sequence[Record], setting: Setting) -> dict[str, Interval]:
    """Return the AUROC of two classifiers on character 1- to 3-grams, on the pairs of one setting.

    Args:
        records: Human passages and continuations, as ``lit-detect generate`` writes them.
        setting: Generator, name of the decoding, and number of priming tokens.

    Returns:
        ``shapes``, the AUROC of the classifier that reads shapes, and ``texts``, that of the one that reads the texts.

    Raises:
        UserError: If scikit-learn is missing, or there are too few documents.
    """
    priming = setting[2]
    machine = {record.meta["passage"]: record for record in records if _setting(record) == setting}
    human = [r for r in records if r.label == HUMAN and r.meta["priming_tokens"] == priming]
    pairs = [(record, machine[record.meta["passage"]]) for record in human if record.meta["passage"] in machine]
    texts = [record.text for pair in pairs for record in pair]
    groups = [record.pair_id for pair in pairs for record in pair]
    labels = [HUMAN, MACHINE] * len(pairs)
    return {of: character_auroc(texts, labels, groups, of) for of in ("shapes", "texts")}


def leak_table(records: Sequence[Record]) -> str:
    """Return the results of `leak_test` for each setting as a table, or the reason why the test cannot run.

    Args:
        records: Human passages and continuations, as ``lit-detect generate`` writes them.
    """
    settings = list(dict.fromkeys(setting for record in records if (setting := _setting(record)) is not None))
    rows: list[list[object]] = [["generator", "decoding", "priming", "AUROC of shapes", "of characters"]]
    for setting in settings:
        try:
            auroc = leak_test(records, setting)
        except UserError as error:
            return on_screen(error)
        mark = ["formatting tells"] if auroc["shapes"].mean > LEAK else []
        rows.append([*setting, auroc["shapes"], auroc["texts"], *mark])
    return "\n".join(text_table(rows))


def _setting(record: Record) -> Setting | None:
    if record.label != MACHINE:
        return None
    return record.source, record.decoding["name"], record.decoding["priming_tokens"]
