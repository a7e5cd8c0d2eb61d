"""The verb ``report``: detectors under attacks, in domains, against generators and decodings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning.fabric import Fabric

from lit_core.errors import LEFT_OUT, OK, UserError, check_at_least, checked_first, did_you_mean
from lit_core.files.bad_rows import SET_ASIDE, STOP, BadRows, OnError
from lit_core.files.exclusive_folder import ExclusiveFolder
from lit_core.files.outputs import output_folder
from lit_core.files.paths import atomic_write
from lit_core.lightning.devices import AUTOCAST, Devices
from lit_core.lm.language_model import LanguageModel
from lit_core.record import check_same_work, write_record
from lit_core.screen import quoted, say
from lit_core.seeds import part_seed
from lit_core.statistics.interval import Interval
from lit_core.study.report import write_page
from lit_detect.data.user_texts import open_texts
from lit_detect.functional.threshold import check_scores
from lit_detect.generation.ngram_model import NGramLM  # noqa: F401  # so that its short name is known
from lit_detect.judging import Judge
from lit_detect.language.similarity import Similarity, WordOverlap
from lit_detect.loading import load_checkpoint, score_many
from lit_detect.metrics import RATES
from lit_detect.records import FIELDS, HUMAN, MACHINE, Record, condition, records_sha256
from lit_detect.report.called import Called, called_lines
from lit_detect.report.evaluate import Evaluated, attacks, conditions, crossed, originals
from lit_detect.report.pages import ReportRow, draw, markdown, write_csv
from lit_detect.report.quality import quality
from lit_detect.scoring.gruen import Gruen

#: Files that a report replaces.
_RESULTS = ("report.md", "report.csv", SET_ASIDE, "tensorboard")
_NO_PERPLEXITY = "Perplexities are left out, since no `language_model` is given."
_NO_GRUEN = (
    "GRUEN is left out, since its models are not given: `gruen` takes a masked language model and a classifier that "
    "was fine-tuned on CoLA."
)


def _check(resamples: int, seed: int | None, batch_size: int) -> None:
    check_at_least(1, resamples=resamples, batch_size=batch_size)
    part_seed(seed)


@checked_first(_check)
def report(
    detectors: dict[str, str],
    texts: list[str],
    output: str = "report",
    by: list[str] | None = None,
    split: str = "test",
    on_error: OnError = "stop",
    similarity: Similarity | None = None,
    language_model: LanguageModel | None = None,
    gruen: Gruen | None = None,
    resamples: int = 1000,
    seed: int | None = None,
    batch_size: int = 16,
    trainer: Devices = Devices(),  # noqa: B008
) -> int:
    """Evaluate detectors on texts by condition: tables, figures and TensorBoard.

    Thresholds at a false-positive rate are fixed on the clean human texts of each domain. Scores are saved at once: to
    resume a killed report, start the same command again. Further detectors or texts cost only their own scores. A
    detector whose scores are not finite or all the same is refused with the reason, the others are reported, and the
    command ends with 3.

    Args:
        detectors: Checkpoints of ``lit-detect fit`` by the names under which they are reported.
        texts: Labelled texts: records as ``lit-detect generate`` and ``attack`` write them (.jsonl), a .csv, .tsv or
            .parquet with the columns text and label, a data set as hf:NAME:SPLIT, and folders that
            ``lit-detect prepare`` wrote: a root, a source, or one split; also patterns of files.
        output: Folder for report.md, report.csv, figures, TensorBoard and the finished scores; new, or that of the same
            report with fewer detectors or texts.
        by: Conditions to look at: domain, generator, decoding, priming, attack, or a key of meta such as language;
            null takes the first five, an empty list none.
        split: Split that is taken of a root or a source.
        on_error: What a bad row, or one without a label, does: stop ends the command, skip lists it with its reason in
            set_aside.csv in the output, and the others are reported.
        similarity: What compares attacked texts with their originals, by class name; null takes the words in common.
        language_model: Language model whose perplexity of attacked texts and originals is reported, by class name or
            function; null reports none.
        gruen: Models for GRUEN, the quality of attacked texts and originals without a reference; null leaves it out.
        resamples: How often texts are drawn for the intervals of what attacks cost the text, 1 or more.
        seed: Seed of the drawing, 0 or more; null takes 0.
        batch_size: Texts per forward pass.
        trainer: Devices to score on.

    Returns:
        The exit code: 0, or 3 if a detector was refused.

    Raises:
        UserError: If an argument is wrong, the folder holds another report, a domain lacks human texts, or every
            detector is refused.
    """
    folder, fields = output_folder(output, "`output`"), list(FIELDS) if by is None else by
    similarity = similarity or WordOverlap()
    _check(resamples, seed, batch_size)
    if not detectors:
        raise UserError("`detectors` is empty; give a checkpoint, as in --detectors.NAME=FILE.")
    seed, bad = part_seed(seed), BadRows(on_error)
    gathered = gather(texts, split, bad)
    records = [record for some in gathered.values() for record in some]
    check_conditions(records, fields)
    originals(records)  # refuses attacked texts whose original is unclear, before anything is scored
    notes = check_coverage(records)
    loaded = {name: load_checkpoint(path, f"`detectors.{name}`") for name, path in detectors.items()}
    measures = {"similarity": similarity, "language_model": language_model, "gruen": gruen}
    work = {
        "verb": "report",
        "detectors": {name: judge.checkpoint_sha256 for name, judge in loaded.items()},
        "texts": {path: records_sha256(some) for path, some in gathered.items()},
        **{name: measure and measure.name for name, measure in measures.items()},
        **{"by": fields, "resamples": resamples, "seed": seed, "precision": trainer.precision},
    }
    check_same_work(folder, "`output`", work, _RESULTS)
    fabric = trainer.launch(AUTOCAST)
    scores = folder / ("scores" if trainer.precision not in AUTOCAST else f"scores-{trainer.precision}")
    busy = f"`output` is {folder}, which another report is writing; wait for it, or give another folder."
    with ExclusiveFolder(folder, busy, fabric.global_rank, fabric):
        if fabric.is_global_zero:
            say(f"{len(loaded)} detectors, {len(records):,} texts. To resume a killed report, start it again.")
        evaluated, refused = _evaluate_all(loaded, records, scores, batch_size, fabric)
        if not fabric.is_global_zero:
            return OK
        say("Computing intervals.")
        rows = [row for one in evaluated for row in rows_of(one, fields)]
        notes += left_out(evaluated, rows, fields)
        measurements = folder / "scores" / "quality.jsonl"
        costs = quality(records, measurements, similarity, language_model, gruen, resamples, seed)
        rows += [ReportRow("", "quality", {"attack": name}, values) for name, values in costs]
        if costs:
            notes += [
                sentence for given, sentence in ((language_model, _NO_PERPLEXITY), (gruen, _NO_GRUEN)) if not given
            ]
        notes += [
            f"{one.in_windows:,} of {len(one.records):,} texts are longer than what {one.name} reads at once; their "
            "score is the largest of their windows, but its own threshold is for one."
            for one in evaluated
            if one.in_windows
        ]
        notes += [f"{name} is left out: {reason}" for name, reason in refused.items()]
        kept = {name: judge.checkpoint_sha256 for name, judge in loaded.items() if name not in refused}
        write_record(folder, work={**work, "detectors": kept})
        bad.write(folder / SET_ASIDE)
        _write(folder, evaluated, rows, notes)
        bad.tell(folder / SET_ASIDE)
    return LEFT_OUT if refused else OK


def _evaluate_all(
    loaded: Mapping[str, Judge],
    records: Sequence[Record],
    folder: Path,
    batch_size: int,
    fabric: Fabric,
) -> tuple[list[Evaluated], dict[str, str]]:
    """Return the detectors that could be evaluated, and by name why the others could not."""
    evaluated: list[Evaluated] = []
    refused: dict[str, str] = {}
    for name, judge in loaded.items():
        try:
            evaluated.append(evaluate(name, judge, records, folder, batch_size, fabric))
        except UserError as error:
            refused[name] = str(error)
            if fabric.is_global_zero:
                say(f"{name} is refused: {error}")
    if not evaluated:
        raise UserError(f"Every detector is refused; {next(iter(refused.values()))}")
    return evaluated, refused


def _write(folder: Path, evaluated: Sequence[Evaluated], rows: Sequence[ReportRow], notes: Sequence[str]) -> None:
    pictures = draw(folder, evaluated, rows)
    page = markdown(evaluated, rows, notes, pictures)
    write_csv(folder / "report.csv", rows)
    atomic_write(folder / "report.md", page)
    write_page(folder / "tensorboard", page, [folder / name for name in pictures])
    of_all = [row for row in rows if row.table == "all"]
    called = [Called(row.detector, _of(row, HUMAN), _of(row, MACHINE)) for row in of_all]
    say("", *called_lines(called), "")
    say(f"Report       {folder / 'report.md'}", f"Look at it   tensorboard --logdir {quoted(folder / 'tensorboard')}")


def _of(row: ReportRow, label: int) -> Interval | None:
    """Return the share of the human or of the machine texts of a row that is called machine."""
    recall = row.values.get("recall/human" if label == HUMAN else "recall/machine")
    if not isinstance(recall, Interval) or recall.reason:
        return None
    return recall.complement if label == HUMAN else recall


def evaluate(
    name: str,
    judge: Judge,
    records: Sequence[Record],
    folder: Path,
    batch_size: int = 16,
    fabric: Fabric | None = None,
) -> Evaluated:
    """Score the texts that are long enough for a detector.

    Args:
        name: Name of the detector in the report.
        judge: The detector.
        records: The texts.
        folder: Folder of finished scores.
        batch_size: Texts per forward pass.
        fabric: The processes that share the texts; None for this process alone.

    Raises:
        UserError: If nothing fixed its threshold, a score is not a finite number, or all are the same.
    """
    if judge.threshold is None:
        raise UserError(f"{judge.name} has no threshold yet; run `lit-detect fit`.")
    long = judge.long_enough([record.text for record in records])
    chosen = [record for record, is_long in zip(records, long, strict=True) if is_long]
    check_coverage(chosen, f" that {name} reads")
    scored = score_many(judge, [record.text for record in chosen], batch_size, folder, fabric)
    check_scores(scored.scores, f"scores of {name}")
    abstains = len(records) - len(chosen)
    in_windows = sum(judge.need_windows([record.text for record in chosen]))
    return Evaluated(name, judge.name, chosen, scored.scores, judge.threshold, scored.seconds, abstains, in_windows)


def rows_of(evaluated: Evaluated, fields: Sequence[str]) -> Iterator[ReportRow]:
    """Yield the rows of a detector: all texts, each condition, attacks, and all conditions crossed."""
    for field, name, values in conditions(evaluated, fields):
        yield ReportRow(evaluated.name, field, {} if field == "all" else {field: name}, values)
    for name, values in attacks(evaluated):
        yield ReportRow(evaluated.name, "evasion", {"attack": name}, values)
    for labels, values in crossed(evaluated, fields):
        yield ReportRow(evaluated.name, "crossed", labels, values)


def left_out(found: Sequence[Evaluated], rows: Sequence[ReportRow], fields: Sequence[str]) -> list[str]:
    """Name the conditions of machine texts that no row is of, one sentence each."""
    shown = {(row.table, row.labels.get(row.table)) for row in rows}
    several = [(field, names) for one in found for field in fields if len(names := one.conditions(field)) > 1]
    missing = {(field, name) for field, names in several for name in names} - shown
    return [
        f"{field} {name} is left out: it has no clean machine texts, or lacks clean human ones in a domain."
        for field, name in sorted(missing)
    ]


def gather(paths: Sequence[str], split: str, bad: BadRows = STOP) -> dict[str, list[Record]]:
    """Return the records of files and folders by path, all of which must have a label.

    Args:
        paths: The files and folders; see `open_texts`.
        split: Split that is taken of a prepared source or root.
        bad: What becomes of bad rows, and of texts without a label.

    Raises:
        UserError: If there is no such file or folder, two paths name the same file, or a text has no label.
    """
    if not paths:
        raise UserError("`texts` is empty; name files or folders with some.")
    gathered: dict[str, list[Record]] = {}
    read: dict[Path, str] = {}
    for path in paths:
        texts = open_texts(path, "`texts`", split=split, bad=bad)
        for file in map(Path.resolve, texts.files):
            if file in read:
                raise UserError(
                    f"`texts` names {file} by {read[file]} and again by {path}, so its texts would count twice; remove "
                    "one of them."
                )
            read[file] = path
        records = gathered[path] = []
        for index, record in texts.numbered_records():
            if record.label is None:
                where = texts.where(index)
                bad.add(where, UserError(f"{where} has no label, which a report needs; say human or machine there."))
            else:
                records.append(record)
    return gathered


def check_conditions(records: Sequence[Record], names: Sequence[str]) -> None:
    """Refuse the name of a condition that no text has.

    Args:
        records: The texts.
        names: Conditions by which the texts are told apart.

    Raises:
        UserError: If a name is neither one of `FIELDS` nor a key of a text's meta.
    """
    known = [*FIELDS, *sorted({key for record in records for key in record.meta})]
    for name in names:
        if name not in known:
            raise UserError(f"`by` names {name}, which no text has; correct it.{did_you_mean(name, known)}")


def check_coverage(records: Sequence[Record], which: str = "") -> list[str]:
    """Refuse machine texts of a domain without clean human texts, and return what to know of small domains.

    Args:
        records: The texts.
        which: What the sentence says of which texts are meant.
    """
    human = Counter(condition(one, "domain") for one in records if one.label == HUMAN and not one.attack)
    machine = Counter(condition(one, "domain") for one in records if one.label == MACHINE)
    if not machine:
        raise UserError(f"There are no machine texts{which}; add some.")
    for domain in sorted(machine):
        if not human[domain]:
            named = "" if domain == "none" and len(machine) == 1 else f" of the domain {domain}"
            raise UserError(
                f"There are {machine[domain]} machine texts{named}, but no clean human ones{which} to fix the "
                "threshold on; add some, or leave those out."
            )
    notes = []
    for domain in sorted(machine):
        rates = [f"{rate:.0%}" for rate in RATES.values() if human[domain] < 3 / rate]
        if rates:
            notes.append(
                f"Domain {domain} has {human[domain]} clean human texts, too few for a sure false-positive rate of "
                f"{' or '.join(rates)}; look at the rate achieved."
            )
    return notes
