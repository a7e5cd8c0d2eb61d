"""MiniLM fine-tuned on human and machine texts of other domains and other generators, in place of the statistics."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from default_detector.evaluate import FOREIGN, FPR
from default_detector.tables import markdown
from default_detector.texts import Text
from lit_core.files.paths import atomic_write
from lit_core.statistics.proportion import share_interval
from lit_core.statistics.roc import auroc_interval
from lit_core.study.options import read
from lit_detect.functional.conformal import threshold_at_fpr
from lit_detect.records import HUMAN, MACHINE
from lit_detect.study.options import DetectorPart, DetectorRecipe
from lit_detect.study.training import fitted, scores_of_texts

#: Texts of each class to train on, and human texts of the same domains that set the threshold.
TRAINED, CALIBRATED = 300, 300
#: As `lit-detect fit` trains an encoder with its shipped config, on as many tokens as the studies read.
ENCODER = {"class_path": "lit_detect.detectors.EncoderDetector", "init_args": {"model": "minilm", "max_tokens": 160}}
RECIPE = DetectorRecipe(epochs=3, batch_size=16, learning_rate=1e-4)


def fine_tuned(rows: Sequence[Text], folder: Path) -> str:
    """Return how well a fine-tuned encoder tells generators apart in domains, where neither was trained on.

    Args:
        rows: The texts.
        folder: Folder for the scores of each pair of domain and generator, where a killed run is resumed.
    """

    def lines() -> Iterator[Sequence[object]]:
        for domain, generator in left_out(rows):
            train, calibration, judged = division(rows, domain, generator)
            texts = [row.text for row in (*calibration, *judged)]
            scores = _scores(train, texts, folder / f"{domain}, {generator}.json")
            known, own = scores[: len(calibration)], scores[len(calibration) :]
            machine = torch.tensor([row.label == MACHINE for row in judged])
            names = sorted({row.pair for row in judged})
            pairs = torch.tensor([names.index(row.pair) for row in judged])
            called = own >= threshold_at_fpr(known, FPR)
            shares = (share_interval(called[one], pairs[one]) for one in (machine, ~machine))
            yield f"{domain}, {generator}", len(train), auroc_interval(own, machine, pairs), *shares

    head = ["domain, generator", "trained on", "AUROC", "machine texts called machine", "human texts called machine"]
    return markdown(head, lines())


def left_out(rows: Sequence[Text]) -> list[tuple[str, str]]:
    """Return the domains with human texts, each with the generators that follow instructions or prompts there."""
    human = {row.domain for row in rows if row.label == HUMAN}
    found = {(row.domain, row.generator) for row in rows if row.label == MACHINE and not row.is_base}
    return sorted(pair for pair in found if pair[0] in human)


def division(rows: Sequence[Text], domain: str, generator: str) -> tuple[list[Text], list[Text], list[Text]]:
    """Return the texts to train on, human ones for the threshold, and those to judge, which share no human text.

    Args:
        rows: The texts.
        domain: Domain that is left out and judged.
        generator: Generator that is left out with its family, and judged.
    """
    judged = [row for row in rows if row.domain == domain and row.generator in ("human", generator)]
    (family,) = {row.family for row in judged if row.label == MACHINE}
    usable = [r for r in rows if r.domain not in (domain, *FOREIGN) and r.family != family and not r.is_base]
    train = [row for label in (HUMAN, MACHINE) for row in _spread([r for r in usable if r.label == label], TRAINED)]
    pairs = {row.pair for row in train}
    return train, _spread([r for r in usable if r.label == HUMAN and r.pair not in pairs], CALIBRATED), judged


def _spread(rows: Sequence[Text], most: int) -> list[Text]:
    """Return texts of different pairs, equally many of each domain as far as there are, at most `most`."""
    draw, by_domain = random.Random(0), dict[str, dict[str, Text]]()
    for row in draw.sample(rows, len(rows)):
        by_domain.setdefault(row.domain, {}).setdefault(row.pair if row.label == HUMAN else row.text, row)
    ranked = [(turn, domain, row) for domain, own in by_domain.items() for turn, row in enumerate(own.values())]
    return [row for *_, row in sorted(ranked, key=lambda each: each[:2])[:most]]


def _scores(train: Sequence[Text], texts: Sequence[str], path: Path) -> Tensor:
    """Return the scores of texts by an encoder that is trained on others, from the file or computed and written."""
    samples = tuple((row.text, row.label) for row in train)
    digest = hashlib.sha256(json.dumps([ENCODER, vars(RECIPE), samples, texts]).encode()).hexdigest()
    if not path.is_file() or json.loads(path.read_text())["digest"] != digest:
        detector = fitted(read(DetectorPart, ENCODER, "detector"), samples, RECIPE, 0, None).detector
        parts = [scores_of_texts(detector, texts[first : first + 32]) for first in range(0, len(texts), 32)]
        atomic_write(path, json.dumps({"digest": digest, "scores": torch.cat(parts).tolist()}) + "\n")
    return torch.tensor(json.loads(path.read_text())["scores"], dtype=torch.float64)
