"""One detector trained and tested under many conditions, in one process: what a study of detection varies.

After the experiments of Pu et al. 2023, Deepfake Text Detection: Limitations and Opportunities, arXiv 2210.09421.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import pydoc
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import AdamW

from lit_core.data import ResumeStream, ShardStream, StreamLoader
from lit_core.errors import UserError
from lit_core.files.paths import atomic_write, data_root, files_facts, resolve_data_path
from lit_core.lightning.schedules import WarmupCosine
from lit_core.lm.language_model import LanguageModel
from lit_core.study.cells import code_version
from lit_detect.attacks import Attack, Attacked
from lit_detect.callbacks import AdversarialTraining
from lit_detect.detectors import Detector, Ensemble, FeatureDetector, TrainedDetector
from lit_detect.formats import TextSource
from lit_detect.formats.litshift import read_records
from lit_detect.functional.calibration import fit_platt
from lit_detect.language.normalize import normalize_text
from lit_detect.metrics import scores_of
from lit_detect.module import DetectorTask
from lit_detect.records import HUMAN, MACHINE, Edit, Record, condition
from lit_detect.scoring.causal import TokenMemory, remembering

Plain = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How a trained detector is trained.

    Args:
        epochs: Times that each text is seen.
        batch_size: Texts per step.
        learning_rate: Of AdamW with a linear warm-up over a tenth of the steps and a cosine schedule.
        precision: Type of the numbers in training and in scoring, as Lightning names it.
    """

    epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 1e-4
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


class Files(TextSource):
    """Texts of several files of records, as ``lit-detect generate`` writes them.

    Args:
        paths: The .jsonl files, absolute, from the working directory, or below the data root.
    """

    name, licence = "files", "that of the texts"

    def __init__(self, paths: list[str]) -> None:
        self.paths = [resolve_data_path(path) for path in paths]
        self.origin = ", ".join(path.name for path in self.paths)

    def records(self) -> Iterator[Record]:
        """Yield the records file by file; see `TextSource.records`."""
        for path in self.paths:
            if not path.is_file():
                raise UserError(f"{path} is missing; make it with `lit-detect generate`, see docs/detect.md.")
            yield from read_records(path)

    def facts(self) -> dict[str, Any]:
        """Return names, sizes and times of the files."""
        return files_facts(self.paths)


class Texts:
    """Labelled texts as a source of samples.

    Args:
        samples: Texts and their labels.
    """

    def __init__(self, samples: Sequence[tuple[str, int]]) -> None:
        self.texts = [text for text, _ in samples]
        self.labels = [int(label == MACHINE) for _, label in samples]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"text": self.texts[index], "y": self.labels[index]}


def experiment(
    seed: int,
    detector: str,
    detectors: dict[str, Plain],
    pairs: Plain,
    trained_on: str,
    priming: str,
    wild: dict[str, Plain] | None = None,
    recipe: Plain | None = None,
    train_texts: int | None = None,
    folds: int = 1,
    lengths: list[int] | None = None,
    attacks: dict[str, Plain] | None = None,
    attacked_texts: int = 40,
    queried_texts: int = 10,
    defence: Literal["none", "adversarial", "normalized"] = "none",
    adversarial: Plain | None = None,
) -> list[dict[str, Any]]:
    """Train a detector on some decodings of one generator, and test it on others, in the wild and under attack.

    Args:
        seed: Seed of the training; with several folds, which of them is tested on.
        detector: Name of the detector.
        detectors: Class and arguments of detectors by name.
        pairs: Class and arguments of the source of texts to train on and to test on.
        trained_on: Decodings that it is trained on, by name, with + between them.
        priming: Tokens of human text that the generator was given in the training texts.
        wild: Sources of texts that training never sees, by name.
        recipe: Arguments of `Recipe`, for detectors that are trained.
        train_texts: Most texts of each class to train on; None takes all.
        folds: Parts that the test texts are divided into by document; each seed is tested on one, so that an interval
            over the seeds covers the choice of the texts as well.
        lengths: Words that test texts are cut to, each a condition.
        attacks: Attacks on the machine texts of the test, by name.
        attacked_texts: Most texts that are attacked.
        queried_texts: The same for attacks that ask a detector which needs a language model.
        defence: What is done for robustness: training with attacks, or normalised Unicode.
        adversarial: Arguments of `AdversarialTraining`, for that defence.

    Returns:
        A row per condition, with the labels ``condition`` and ``value``.
    """
    known = trained_on.split("+")
    records = _records(json.dumps(pairs))
    train = [r for r in records if r.split == "train" and _is_of(r, known, priming)]
    test = [r for r in records if r.split == "test" and _in_fold(r, seed, folds)]
    own = [r for r in test if _is_of(r, known, priming)]
    train = [r for label in (HUMAN, MACHINE) for r in _drawn([r for r in train if r.label == label], train_texts)]
    if not {HUMAN, MACHINE} <= {r.label for r in train} & {r.label for r in own}:
        there = sorted({f"{condition(r, 'decoding')} from {condition(r, 'priming')}" for r in records if r.label})
        raise UserError(f"trained_on is {trained_on}, priming {priming}, but the texts have {', '.join(there)}.")
    if defence == "adversarial" and adversarial is None:
        raise UserError("defence is adversarial, but adversarial is missing; name the attacks that are trained on.")
    attacking = json.dumps(adversarial) if defence == "adversarial" else None
    samples = tuple((record.text, record.label) for record in train)
    plan = json.dumps(detectors[detector]), samples, Recipe(**(recipe or {})), seed, attacking
    judge = _judge(*plan, normalized=defence == "normalized")
    rows = [_row("own", "own", judge, own) | {"priming": float(priming)}]
    for field, places in (("decoding", known), ("priming", [priming])):
        for value in sorted({condition(r, field) for r in test if r.label == MACHINE}):
            others = [r for r in test if _is_of(r, *((known, value) if field == "priming" else ([value], priming)))]
            if value not in places and {HUMAN, MACHINE} <= {r.label for r in others}:
                number = {"priming": float(value)} if field == "priming" else {}
                rows.append(_row(field, value, judge, others) | number)
    made = {(condition(r, "decoding"), condition(r, "priming")) for r in test if r.label == MACHINE}
    for decoding, tokens in sorted(made, key=lambda pair: (pair[0], float(pair[1]))):
        others = [r for r in test if _is_of(r, [decoding], tokens)]
        if len(made) > 1 and HUMAN in {r.label for r in others}:
            rows.append(_row("decoding and priming", f"{decoding} from {tokens}", judge, others))
    for name, source in (wild or {}).items():
        theirs = [r for r in _records(json.dumps(source)) if _in_fold(r, seed, folds)]
        if {HUMAN, MACHINE} <= {r.label for r in theirs}:
            rows.append(_row("wild", name, judge, theirs))
    for words in lengths or ():
        cut = [replace(r, text=" ".join(r.text.split()[:words])) for r in own]
        rows.append(_row("length", str(words), judge, cut) | {"words": float(words)})
    for row in rows[1:]:
        row["recall_drop"] = rows[0]["recall_machine"] - row["recall_machine"]
        row["precision_drop"] = rows[0]["precision_machine"] - row["precision_machine"]
        row["drop_beyond_precision"] = row["recall_drop"] - row["precision_drop"]
    for name, attack in (attacks or {}).items():
        few = _asks(attack) and not isinstance(judge.task.detector, TrainedDetector)
        machine = _drawn([r for r in own if r.label == MACHINE], queried_texts if few else attacked_texts)
        rows.append(_attacked_row(name, attack, judge, machine, [r for r in own if r.label == HUMAN]))
    digest = hashlib.sha256("\0".join(r.text for r in (*train, *own)).encode()).hexdigest()[:16]
    return [{"data": digest} | row for row in rows]


class _Judge:
    """Scores texts, each once, and remembers what attacks that ask it made of them."""

    def __init__(self, task: DetectorTask, change: Callable[[str], str] | None, precision: str) -> None:
        self.task, self.change, self.precision = task, change, precision
        self.threshold = float(task.threshold)
        self.misled: dict[tuple[str, str], Attacked] = {}
        self._known: dict[str, float] = {}

    def __call__(self, texts: Iterable[str]) -> Tensor:
        asked = [text if self.change is None else self.change(text) for text in texts]
        new = [text for text in dict.fromkeys(asked) if text not in self._known]
        with self.autocast():
            for start in range(0, len(new), 64):
                part = new[start : start + 64]
                self._known |= dict(zip(part, _scores(self.task.detector, part).tolist(), strict=True))
        return torch.tensor([self._known[text] for text in asked], dtype=torch.float64)

    def autocast(self) -> torch.autocast:
        """Return the context in which a trained detector scores as it was trained."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16-mixed")


@lru_cache(maxsize=8)  # the other grids of a seed ask the same detector
def _judge(
    description: str,
    samples: tuple[tuple[str, int], ...],
    recipe: Recipe,
    seed: int,
    adversarial: str | None,
    normalized: bool,
) -> _Judge:
    change = normalize_text if normalized else None
    if change is not None:
        samples = tuple((change(text), label) for text, label in samples)
    return _Judge(_fitted(description, samples, recipe, seed, adversarial), change, recipe.precision)


def _row(what: str, value: str, judge: _Judge, records: Sequence[Record]) -> dict[str, Any]:
    scores = judge(record.text for record in records)
    labels = torch.tensor([record.label for record in records])
    found = scores_of(scores[labels == HUMAN], scores[labels == MACHINE], judge.threshold)
    return {"condition": what, "value": value, "texts": float(len(records))} | _plain(found)


def _attacked_row(
    name: str, attack: Plain, judge: _Judge, machine: Sequence[Record], human: Sequence[Record]
) -> dict[str, Any]:
    texts = [record.text for record in machine]
    found = _attack_all(attack, texts, judge)
    before, after = judge(texts), judge(attacked.text for attacked in found)
    scores = scores_of(judge(record.text for record in human), after, judge.threshold)
    detected = before >= judge.threshold
    missed = float((detected & (after < judge.threshold)).sum())
    edits, queries = (
        sum(counts) / len(found) for counts in ([len(a.edits) for a in found], [a.queries for a in found])
    )
    values = {
        "texts": float(len(machine)),
        "evasion": missed / float(detected.sum()) if detected.any() else float("nan"),
        "recall_before": float(detected.double().mean()),
        "edits": edits,
        "queries": queries,
        "score_shift": float((after - before).mean()),
    }
    return {"condition": "attack", "value": name} | _plain(scores) | values


def _plain(found: Mapping[str, float]) -> dict[str, float]:
    """Return values under names without slashes, as columns of a table."""
    return {name.replace("/", "_"): float(value) for name, value in found.items()}


@lru_cache(maxsize=8)
def _fitted(
    description: str, samples: tuple[tuple[str, int], ...], recipe: Recipe, seed: int, adversarial: str | None
) -> DetectorTask:
    """Return a task whose detector is trained, fitted or calibrated."""
    detector, texts = _detector(json.loads(description), samples, recipe, seed), Texts(samples)
    labels = torch.tensor(texts.labels)
    if isinstance(detector, FeatureDetector):
        detector.fit_features(_values(detector, texts.texts), labels)
        return DetectorTask(detector).eval()
    if not isinstance(detector, TrainedDetector):
        task = DetectorTask(detector)
        task.set_platt(fit_platt(_values(detector, texts.texts)[:, 0], labels))
        return task.eval()
    steps = recipe.epochs * -(-len(texts) // recipe.batch_size)
    optimizer = partial(AdamW, lr=recipe.learning_rate, weight_decay=1e-2)
    task = DetectorTask(detector, optimizer, partial(WarmupCosine, total_steps=steps, warmup=0.1))
    batch = {"global_batch_size": recipe.batch_size, "micro_batch_size": recipe.batch_size}
    stream = ShardStream(texts, "train", **batch, seed=seed)
    stream.tells_epochs = False
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # a study trains many
    warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
    settings = json.loads(adversarial) if adversarial else None
    attacks = [_OnDisk(each) for each in settings["attacks"]] if settings else []
    callbacks = [AdversarialTraining(**settings | {"attacks": attacks})] if settings else []
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        precision=recipe.precision,
        callbacks=[ResumeStream(), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(task, StreamLoader(stream))
    return task.eval()


def _detector(description: Plain, samples: tuple[tuple[str, int], ...], recipe: Recipe, seed: int) -> Detector:
    kind: Any = pydoc.locate(description["class_path"])
    arguments = description.get("init_args", {})
    if "seed" in inspect.signature(kind).parameters:
        arguments = arguments | {"seed": seed}
    if kind is not Ensemble:
        return build({"class_path": description["class_path"], "init_args": arguments})
    members = []
    for member in arguments["members"]:
        is_trained = issubclass(pydoc.locate(member["class_path"]), TrainedDetector)  # type: ignore[arg-type]
        fitted = _fitted(json.dumps(member), samples, recipe, seed, None).detector if is_trained else build(member)
        members.append(fitted)
    return Ensemble(members)


#: What the cells of a study share: the language models, by their descriptions, and what they said of texts.
_language_models: dict[str, LanguageModel] = {}
_memory: TokenMemory = {}


def _values(detector: Detector, texts: Sequence[str]) -> Tensor:
    """Return features, or scores as one column, ``(n, f)``."""
    with remembering(_memory):
        return detector.features(texts) if isinstance(detector, FeatureDetector) else detector.score(texts)[:, None]


def _scores(detector: Detector, texts: Sequence[str]) -> Tensor:
    if isinstance(detector, TrainedDetector):
        return detector.score(texts)
    values = _values(detector, texts)
    return detector.score_features(values) if isinstance(detector, FeatureDetector) else values[:, 0]


def _attack_all(description: Plain, texts: Sequence[str], judge: _Judge) -> list[Attacked]:
    if not _asks(description):
        return _OnDisk(description).attack_many(texts, 0)
    key = json.dumps(description)
    if new := [text for text in texts if (key, text) not in judge.misled]:
        own = {"detector": judge.task.detector, "threshold": judge.threshold}
        kind: Any = pydoc.locate(description["class_path"])
        attack = kind(**build(description.get("init_args", {})), **own)
        with judge.autocast():
            judge.misled |= {(key, text): attack(text, 0) for text in new}
    return [judge.misled[key, text] for text in texts]


class _OnDisk(Attack):
    """An attack that asks no detector; what it makes of a text is kept below the data root, for other cells.

    Args:
        description: Class and arguments of the attack.
    """

    def __init__(self, description: Plain) -> None:
        self._attack: Attack = build(description)
        self.name = self._attack.name
        digest = hashlib.sha256(f"{json.dumps(description)} {code_version('lit_detect')}".encode()).hexdigest()[:16]
        self._folder = data_root() / "detect" / "attacked" / digest

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text, unless that is done; see `Attack`."""
        path = self._folder / f"{hashlib.sha256(f'{seed} {text}'.encode()).hexdigest()[:24]}.json"
        if not path.is_file():
            attacked = self._attack(text, seed)
            kept = vars(attacked) | {"edits": [vars(e) for e in attacked.edits], "meta": dict(attacked.meta)}
            atomic_write(path, json.dumps(kept, ensure_ascii=False))
        found = json.loads(path.read_bytes())
        return Attacked(**found | {"edits": tuple(Edit(**edit) for edit in found["edits"])})


def build(description: Any) -> Any:
    """Build what a class path and its arguments describe, also where arguments are described so."""
    if isinstance(description, list):
        return [build(each) for each in description]
    if not isinstance(description, dict):
        return description
    if "class_path" not in description:
        return {key: build(value) for key, value in description.items()}
    if (key := json.dumps(description, sort_keys=True)) in _language_models:
        return _language_models[key]
    kind = pydoc.locate(description["class_path"])
    if not callable(kind):
        raise UserError(f"class_path is {description['class_path']}, but there is no such class; correct the name.")
    made = kind(**{key: build(value) for key, value in description.get("init_args", {}).items()})
    if isinstance(made, LanguageModel):
        _language_models[key] = made
    return made


@lru_cache(maxsize=16)
def _records(source: str) -> tuple[Record, ...]:
    return tuple(build(json.loads(source)).records())


def _is_of(record: Record, decodings: Sequence[str], priming: str) -> bool:
    """Tell whether a text has a priming, and where a machine wrote it, one of some decodings."""
    # a human text has no decoding, but is the twin of machine texts of one priming
    if str(record.decoding.get("priming_tokens", record.meta.get("priming_tokens"))) != priming:
        return False
    return record.label == HUMAN or condition(record, "decoding") in decodings


def _asks(attack: Plain) -> bool:
    """Tell whether an attack asks the detector."""
    return "detector" in inspect.signature(pydoc.locate(attack["class_path"])).parameters  # type: ignore[arg-type]


def _drawn(records: Sequence[Record], most: int | None) -> list[Record]:
    """Return at most so many records in their order, drawn from all of them alike, always the same."""
    digests = [hashlib.blake2b(record.id.encode(), digest_size=8).digest() for record in records]
    kept = set(sorted(digests)[:most])
    return [record for record, digest in zip(records, digests, strict=True) if digest in kept]


def _in_fold(record: Record, seed: int, folds: int) -> bool:
    digest = hashlib.blake2b((record.pair_id or record.id).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % folds == seed % folds
