"""calibrate and report with a detector that was trained by the command line, on real paragraphs and shuffled ones."""

import csv
import inspect
import json
import re
from dataclasses import replace
from itertools import chain

import pytest
import torch
from austen_pairs import pairs, passages, shuffled
from scipy.stats import beta
from verbs import own_verbs

from lit_core.errors import UserError
from lit_core.files.paths import locked_folder
from lit_detect.calibration import Calibration
from lit_detect.cli import main
from lit_detect.commands.attack import attack
from lit_detect.commands.calibrate import calibrate
from lit_detect.commands.report import gather, left_out, report
from lit_detect.data.one_class import groups_with_enough, read_texts, without_repeats
from lit_detect.data.prepare import prepare
from lit_detect.detectors import EncoderDetector
from lit_detect.formats import LitShiftJSONL
from lit_detect.functional.threshold import auroc
from lit_detect.generation.generate import Decoding, generate
from lit_detect.golden import golden_texts
from lit_detect.loading import load_checkpoint, score_many, trained
from lit_detect.module import DetectorTask
from lit_detect.prefixes import length_grid
from lit_detect.records import HUMAN, MACHINE, Record
from lit_detect.report.evaluate import Evaluated, attacks, conditions, originals
from lit_detect.report.pages import ReportRow


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with two checkpoints, prepared texts, and files of records with and without attacks."""
    folder = tmp_path_factory.mktemp("fitted")
    records = list(pairs(48))
    write(folder / "pairs.jsonl", records)
    prepare(str(folder / "texts"), [LitShiftJSONL(str(folder / "pairs.jsonl"), "austen")])
    texts = ["--data", "TextDataModule", "--data.root", str(folder / "texts"), "--data.train", "[austen]"]
    for seed, name in enumerate(("one", "two")):
        model = {"class_path": "EncoderDetector", "init_args": {"model": "scratch-1x32", "seed": seed}}
        arguments = [
            "fit",
            "--model",
            "DetectorTask",
            "--model.detector",
            json.dumps(model),
            *texts,
            "--model.min_tokens=0",
        ]
        arguments += ["--trainer.default_root_dir", str(folder), "--trainer.max_epochs", "1"]
        arguments += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run", name]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert main(arguments) == 0
    test = [replace(record, split="test") for record in list(pairs(90))[96:]]
    write(folder / "clean.jsonl", test)
    upper = [
        replace(record, text=record.text.upper(), attack="Upper", meta={"edits": [], "queries": 0})
        for record in test
        if record.label
    ]
    write(folder / "upper.jsonl", upper)
    return folder


def numbers(path):
    with path.open(newline="") as file:
        found = {(i, key): cell for i, row in enumerate(csv.DictReader(file)) for key, cell in row.items()}
    return {place: float(cell) for place, cell in found.items() if re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)}


def write(path, records):
    path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))


def checkpoint(folder, name="one"):
    return str(folder / "runs/detect" / name / "checkpoints/last.ckpt")


def run_calibrate(fitted, tmp_path, **arguments):
    path = tmp_path / "human.jsonl"
    rows = [{"text": text, "domain": ("a", "b")[number % 2]} for number, text in enumerate(passages(90))]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "", "domain": "a"}]))
    calibrate(str(path), checkpoint(fitted), output=str(tmp_path / "calibration.json"), **arguments)
    return Calibration.load(tmp_path / "calibration.json")


def test_human_texts_are_measured_whole_and_cut_to_lengths(fitted, tmp_path, capsys):
    found = run_calibrate(fitted, tmp_path, fpr=0.1)
    judge, texts, group = load_checkpoint(checkpoint(fitted)), list(passages(90)), found.groups[""]
    tokens = sorted(judge.count_tokens(texts))
    assert [length.tokens for length in group.lengths] == length_grid(1, tokens[-30])
    assert group.whole.tokens == tokens[-1] and len(group.lengths[0].scores) == 90 and len(group.whole.scores) == 30
    long = [text for text, count in zip(texts, judge.count_tokens(texts), strict=True) if count >= tokens[-30]]
    assert group.whole.scores == pytest.approx(sorted(judge.scores(long).tolist()), rel=1e-4)
    assert found.golden == pytest.approx(judge.scores(golden_texts()).tolist(), rel=1e-4)
    assert found.detector == judge.name and len(found.checkpoint_sha256) == 64 and found.platt is None
    said = capsys.readouterr().out
    assert "1 texts of fewer than 1 tokens are left out." in said and "--model.init_args.calibration" in said
    assert "calls machine at most 10 % of human texts like these, in expectation." in said
    sure = f"{beta.ppf(0.95, 3, 28):.2%}"
    assert re.search(rf"\n{tokens[-30]} to {tokens[-1]} +30 +\S+ +9.68% +{sure}\n", said)
    (tmp_path / "calibration.json").unlink()
    found = run_calibrate(fitted, tmp_path, fpr=0.1, confidence=0.95)
    assert found.confidence == 0.95 and "with 95 % confidence." in capsys.readouterr().out


def test_each_group_and_a_map_to_probabilities(fitted, tmp_path, capsys):
    machine = tmp_path / "machine.txt"
    refrains = [f"Row, row, row your boat {number}. " * 20 for number in range(3)]
    machine.write_text("\n".join([*(shuffled(text) for text in passages(40)), *refrains]))
    found = run_calibrate(fitted, tmp_path, fpr=0.1, by="domain", machine=str(machine))
    assert set(found.groups) == {"a", "b"} and found.platt is not None
    assert all(len(group.lengths[0].scores) == 45 for group in found.groups.values())
    assert found.groups["a"] != found.groups["b"]
    (tmp_path / "calibration.json").unlink()
    run_calibrate(fitted, tmp_path, fpr=0.1, machine=str(machine))
    said = capsys.readouterr().out
    assert re.search(r"Of 40 machine texts of these lengths and this kind it calls machine [\d.]+ \[", said)


def test_a_group_of_few_texts_is_left_out(fitted, tmp_path, capsys):
    rows = [{"text": text, "writer": "a" if number < 40 else "b"} for number, text in enumerate(passages(50))]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    calibrate(str(tmp_path / "h.jsonl"), checkpoint(fitted), fpr=0.1, by="writer", output=str(tmp_path / "c.json"))
    assert [*Calibration.load(tmp_path / "c.json").groups] == ["a"]
    assert "Left out, with fewer than 30 human texts: writer b (1 in all)." in (said := capsys.readouterr().out)
    assert (
        f"--input FILE --model.init_args.calibration {tmp_path / 'c.json'} --data.init_args.group_column writer" in said
    )


def test_a_small_group_in_another_language_is_judged_too(fitted, tmp_path):
    english = [{"text": text, "kind": "prose"} for text in passages(80)]
    german = [{"text": f"Der {n}. Server wird neu gestartet.", "kind": "German"} for n in range(4)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*english, *german]))
    for by, expected in (("kind", False), (None, True)):
        calibrate(str(tmp_path / "h.jsonl"), checkpoint(fitted), fpr=0.75, by=by, output=str(tmp_path / f"{by}.json"))
        found = Calibration.load(tmp_path / f"{by}.json")
        assert len(found.groups) == (2 if by else 1) and found.in_english is expected


def test_a_map_to_probabilities_that_falls_is_refused_and_nothing_is_written(fitted, tmp_path):
    machine, human = tmp_path / "machine.txt", tmp_path / "human.txt"
    originals, others = passages(40), [shuffled(text) for text in passages(40)]
    detector = load_checkpoint(checkpoint(fitted))
    higher, lower = sorted((originals, others), key=lambda texts: -float(score_many(detector, texts, 8).scores.mean()))
    machine.write_text("\n".join(lower))
    human.write_text("\n".join(higher))
    with pytest.raises(UserError, match=r"no higher scores than the human ones .* leave `machine` out"):
        calibrate(str(human), checkpoint(fitted), fpr=0.1, machine=str(machine), output=str(tmp_path / "c.json"))
    assert not (tmp_path / "c.json").exists()


def test_prepared_texts_can_be_calibrated_on(fitted, tmp_path):
    calibrate(str(fitted / "texts/austen/train"), checkpoint(fitted), fpr=0.2, output=str(tmp_path / "c.json"))
    assert len(Calibration.load(tmp_path / "c.json").groups[""].lengths[0].scores) >= 15


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fpr": 0.01}, "There are 91 human texts, but this false-positive rate needs 300"),
        ({"fpr": 0.05, "by": "domain"}, "There are 46 human texts with domain 'a', .* needs 60"),
        ({"fpr": 0.1, "confidence": 0.99999}, "There are 91 human texts, .* needs 110"),
        ({"confidence": 95}, "`confidence` is 95"),
        ({"fpr": 0.0}, "`fpr` is 0"),
        ({"by": "language"}, "language"),
    ],
)
def test_too_few_texts_and_other_mistakes_are_refused(fitted, tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        run_calibrate(fitted, tmp_path, **arguments)
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize("confidence", [None, 0.95, 0.999])
@pytest.mark.parametrize("count", [1, 4, 11, 37, 70, 299])
def test_the_rate_that_is_named_for_few_texts_is_one_that_they_suffice_for(count, confidence):
    with pytest.raises(UserError, match=f"There are {count} human texts, but") as caught:
        groups_with_enough([""] * count, 0.01, confidence, None)
    rates = [float(rate) for rate in re.findall(r"`fpr` of ([\d.]+) or more\.$", str(caught.value))]
    assert [groups_with_enough([""] * count, rate, confidence, None) for rate in rates] == [[""]] * len(rates)
    assert len(rates) == (count >= 4), "of 3 texts and fewer, none"


def test_a_human_text_counts_once_in_its_group(capsys):
    assert without_repeats(["a b", "c", "a  b\n", "a b"], ["x", "x", "x", "y"]) == (
        ["a b", "c", "a b"],
        ["x", "x", "y"],
    )
    assert capsys.readouterr().out == "1 human texts that repeat others are left out.\n"


def test_a_text_of_no_known_group_is_in_none(tmp_path, capsys):
    (tmp_path / "h.csv").write_text('text,writer\na,ann\nb,\nc," "\nd,bob\n')
    assert read_texts(str(tmp_path / "h.csv"), "human", HUMAN, by="writer") == (["a", "d"], ["ann", "bob"])
    assert "2 texts of " in (said := capsys.readouterr().out) and "have no writer and are left out." in said


def test_predict_decides_by_the_calibration(fitted, tmp_path, monkeypatch, capsys):
    found = run_calibrate(fitted, tmp_path, fpr=0.1, by="domain")
    assert found.most_repeated == 0.3 and found.in_english, "in English, without refrains"
    monkeypatch.chdir(fitted)
    arguments = ["predict", "--ckpt_path", checkpoint(fitted), "--run", "predicted", "--trainer.accelerator", "cpu"]
    arguments += ["--model.init_args.calibration", str(tmp_path / "calibration.json")]
    arguments += ["--data.init_args.predict", str(tmp_path / "human.jsonl"), "--data.init_args.group_column", "domain"]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in (fitted / "runs/detect/predicted/predictions.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(91))
    for row in rows[:90]:
        expected = found.judge(row["score"], row["tokens"], "ab"[row["index"] % 2])
        # a score that equals a human one may fall to either side by rounding, in another batch
        assert (
            row["decision"] == ("machine" if expected.is_machine else "human") or abs(expected.p_value - 0.1) < 1 / 30
        )
    assert rows[90]["decision"] == "abstain" and rows[90]["reason"] == "0 tokens, fewer than 1"
    called = sum(row["decision"] == "machine" for row in rows)
    sentence = f"{called} of 90 judged texts are called machine; if all were by humans like those of the calibration, "
    said = capsys.readouterr().out
    assert f"{sentence}at most 9 would be (in expectation)." in said
    assert "tensorboard" not in said, "there are no events of a prediction"
    writer = ["--trainer.callbacks+=lit_detect.callbacks.PredictionWriter", "--trainer.callbacks.fdr=0.1"]
    assert main([*arguments, "--run", "controlled", *writer]) == 0
    with (fitted / "runs/detect/controlled/predictions.csv").open(newline="") as file:
        controlled = [row["decision"] for row in csv.DictReader(file)]
    assert controlled.count("machine") < max(called, 1)  # p = 1/46 at best, of 90
    assert main([*arguments[:-6], *arguments[-4:], "--run", "none", *writer]) == 2
    assert "`fdr` is 0.1, but it needs p-values" in capsys.readouterr().err


def test_a_calibration_decides_no_test_and_only_for_its_checkpoint_and_scores(fitted, tmp_path, monkeypatch, capsys):
    found = run_calibrate(fitted, tmp_path, fpr=0.1)
    task = DetectorTask.load_from_checkpoint(checkpoint(fitted), weights_only=True)
    assert task.decisive_threshold == float(task.threshold)
    moved = replace(found, golden=tuple(score + 1 for score in found.golden))
    no_threshold = "`calibration` has no threshold for all texts"
    cases = [
        ("test", found, no_threshold),
        ("validate", found, no_threshold),
        ("predict", moved, "The detector no longer scores as it did for `calibration`: golden text"),
        ("predict", replace(found, checkpoint_sha256="ab"), "`calibration` is of another checkpoint, but this is"),
    ]
    monkeypatch.chdir(fitted)
    for name in ("test_step", "validation_step", "predict_step"):
        monkeypatch.setattr(DetectorTask, name, lambda *arguments: pytest.fail("scored before"))
    for command, kept, sentence in cases:
        kept.save(tmp_path / "kept.json")
        arguments = [command, "--ckpt_path", checkpoint(fitted), "--run", "old", "--trainer.accelerator", "cpu"]
        arguments += ["--model.init_args.calibration", str(tmp_path / "kept.json")]
        arguments += ["--data.init_args.predict", str(tmp_path / "human.jsonl")]
        assert main(arguments) == 2
        assert sentence in capsys.readouterr().err


@pytest.fixture(scope="module")
def reported(fitted):
    texts = [str(fitted / "clean.jsonl"), str(fitted / "upper.jsonl")]
    report({"one": checkpoint(fitted), "two": checkpoint(fitted, "two")}, texts, str(fitted / "report"), resamples=50)
    return fitted / "report"


def rows_of(folder):
    with (folder / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_has_tables_figures_and_tensorboard(reported):
    rows = rows_of(reported)
    assert {row["table"] for row in rows} == {"all", "domain", "decoding", "attack", "evasion", "quality", "crossed"}
    assert {row["detector"] for row in rows if row["table"] != "quality"} == {"one", "two"}
    page = (reported / "report.md").read_text()
    for title in ("## All clean texts", "## By domain", "## By attack", "## Attacks on texts", "![roc](roc.png)"):
        assert title in page
    assert "GRUEN is left out, since its models are not given" in page and "Perplexities are left out" in page
    assert "Domain emma has 21 clean human texts, too few" in page
    for name in ("roc.png", "auroc.png", "tpr_at_fpr_05.png"):
        assert (reported / name).read_bytes().startswith(b"\x89PNG")
    assert list((reported / "tensorboard").glob("events*"))


def test_the_numbers_are_those_of_the_scores(fitted, reported):
    records = [*chain(*gather([str(fitted / "clean.jsonl"), str(fitted / "upper.jsonl")], "test").values())]
    detector = load_checkpoint(checkpoint(fitted))
    scores = score_many(detector, [record.text for record in records]).scores
    human = torch.tensor([record.label == HUMAN for record in records])
    clean = torch.tensor([not record.attack for record in records])
    emma = torch.tensor([record.domain == "emma" for record in records])
    rows = {
        (row["table"], row["domain"] or row["attack"]): row for row in rows_of(reported) if row["detector"] == "one"
    }
    assert float(rows["all", ""]["auroc"]) == pytest.approx(auroc(scores[human], scores[~human & clean]))
    assert float(rows["domain", "emma"]["auroc"]) == pytest.approx(
        auroc(scores[human & emma], scores[~human & clean & emma])
    )
    assert float(rows["attack", "Upper"]["auroc"]) == pytest.approx(auroc(scores[human], scores[~clean]))
    found = 0.0
    for domain in (emma, ~emma):
        ordered = scores[human & domain].sort(descending=True).values
        rank = 0.05 * (len(ordered) + 1)  # between the scores of these places the threshold is interpolated
        first, second = (int((scores[~clean & domain] > ordered[int(rank) + more - 1]).sum()) for more in (0, 1))
        found += first + (rank - int(rank)) * (second - first)
    assert float(rows["attack", "Upper"]["tpr_at_fpr_05"]) == pytest.approx(found / int((~clean).sum()))
    threshold = detector.threshold
    before, after = scores[~human & clean] >= threshold, scores[~clean] >= threshold  # in the same order
    if before.any():
        evaded = float((before & ~after).sum() / before.sum())
        assert float(rows["evasion", "Upper"]["evasion"]) == pytest.approx(evaded)
    low, high = (float(rows["all", ""][f"auroc_{end}"]) for end in ("low", "high"))
    assert low <= float(rows["all", ""]["auroc"]) <= high and low < high


def test_a_report_scores_nothing_twice(fitted, reported, monkeypatch):
    torn = next((reported / "scores").glob("*.0.jsonl"))  # a detector's scores by the first process
    lines = torn.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[:-3]) + lines[-3][:9])  # killed with three left, in the middle of a row
    scored, score = [], EncoderDetector.score
    monkeypatch.setattr(EncoderDetector, "score", lambda self, texts: scored.extend(texts) or score(self, texts))
    before = numbers(reported / "report.csv")
    texts = [str(fitted / "clean.jsonl"), str(fitted / "upper.jsonl")]
    report({"one": checkpoint(fitted), "two": checkpoint(fitted, "two")}, texts, str(reported), resamples=50)
    assert len(scored) == 3  # those left
    # three texts alone are rounded otherwise than in the batches that they were in
    assert numbers(reported / "report.csv") == pytest.approx(before, rel=1e-4)


def test_a_second_report_into_the_same_folder_is_refused(fitted, tmp_path):
    with locked_folder(tmp_path, ""), pytest.raises(UserError, match="which another report is writing"):
        report({"one": checkpoint(fitted)}, [str(fitted / "clean.jsonl")], str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_report_goes_on_with_more_and_replaces_no_other(fitted, tmp_path, monkeypatch):
    texts, folder = [str(fitted / "clean.jsonl")], tmp_path / "report"
    one, two = {"one": checkpoint(fitted)}, {"two": checkpoint(fitted, "two")}
    report(one, texts, str(folder), by=[], resamples=5)
    report(one | two, texts, str(folder), by=[], resamples=5)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(EncoderDetector, "score", lambda *arguments: pytest.fail("scored before"))
    with pytest.raises(UserError, match="which holds the results of other detectors; give another folder, or add --ov"):
        report(one, texts, str(folder), by=[], resamples=5)
    with pytest.raises(UserError, match="which holds the results of other resamples"):
        report(one | two, texts, str(folder), by=[], resamples=6)
    (tmp_path / "report.md").write_text("of others")
    with pytest.raises(UserError, match=r"which has a report\.md that this command did not write"):
        report(one, texts, str(tmp_path), by=[], resamples=5)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_mistakes_in_a_report_are_said(fitted, tmp_path):
    clean, output = str(fitted / "clean.jsonl"), str(tmp_path / "report")
    with pytest.raises(UserError, match="`detectors` is empty"):
        report({}, [clean], output)
    with pytest.raises(UserError, match="`texts` is nowhere, but there is no such file"):
        report({"one": checkpoint(fitted)}, ["nowhere"], output)
    records = gather([clean], "test")[clean]
    write(tmp_path / "lone.jsonl", [one for one in records if one.label or one.domain == "emma"])
    with pytest.raises(UserError, match="machine texts of the domain lady susan, but no clean human ones"):
        report({"one": checkpoint(fitted)}, [str(tmp_path / "lone.jsonl")], output)
    write(tmp_path / "unknown.jsonl", [replace(records[0], label=None)])
    with pytest.raises(UserError, match=r"unknown\.jsonl, line 1 has no label"):
        report({"one": checkpoint(fitted)}, [str(tmp_path / "unknown.jsonl")], output)
    assert not (tmp_path / "report").exists()


def test_a_folder_of_a_prepared_root_is_found(fitted):
    paths = {"texts": "test", "texts/austen": "test", "texts/austen/test": "val"}
    found = [records for path, split in paths.items() for records in gather([str(fitted / path)], split).values()]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("first", "second"), [("clean.jsonl", "texts/../clean.jsonl"), ("texts", "texts/austen/test"), ("texts", "texts")]
)
def test_texts_that_are_named_twice_are_refused(fitted, first, second):
    with pytest.raises(UserError, match="count twice"):
        gather([f"{fitted}/{first}", f"{fitted}/{second}"], "test")


def test_a_detector_that_an_attack_asks_reads_texts_as_it_was_trained(fitted, tmp_path):
    content = torch.load(checkpoint(fitted), weights_only=True)
    content["config"]["data"].setdefault("init_args", {})["normalize"] = True
    torch.save(content, tmp_path / "normalizing.ckpt")
    plain, normalizing = trained(checkpoint(fitted)), trained(str(tmp_path / "normalizing.ckpt"))
    texts = ["A cat sat on the mat.", "\u0410 \u0441\u0430t s\u0430t on the m\u0430t."]  # Cyrillic letters
    assert torch.allclose(normalizing.score(texts), plain.score([texts[0]]).expand(2))
    assert not torch.allclose(plain.score(texts)[0], plain.score(texts)[1])
    assert normalizing.count_tokens(texts) == plain.count_tokens([texts[0]] * 2) and normalizing.name == plain.name


def test_a_condition_without_human_texts_is_left_out():
    found = [(0, "en"), (0, "en"), (1, "en"), (1, "de")]
    records = [Record(str(n), "", label=label, meta={"language": name}) for n, (label, name) in enumerate(found)]
    evaluated = Evaluated("d", "D", records, torch.arange(4.0).double(), 1.5, 0.0, 0)
    assert [(field, name) for field, name, _ in conditions(evaluated, ["language"])] == [
        ("all", "clean"),
        ("language", "en"),
    ]
    rows = [ReportRow("d", field, {field: name}, values) for field, name, values in conditions(evaluated, ["language"])]
    assert left_out([evaluated], rows, ["language", "generator"]) == [
        "language de is left out: it has no clean machine texts, or lacks clean human ones in a domain."
    ]


def verbs_with_counts():
    """Each verb of the package with each of its arguments that is a number with a smallest value."""
    least = {"batch_size": 1, "resamples": 1, "limit": 1, "seed": 0}
    for verb in own_verbs()["lit_detect"].values():
        yield from (
            (verb, argument, least[argument] - 1)
            for argument in inspect.signature(verb).parameters
            if argument in least
        )


@pytest.mark.parametrize(("verb", "argument", "value"), list(verbs_with_counts()))
def test_a_number_out_of_range_is_refused_before_anything_is_read(verb, argument, value, tmp_path):
    parameters = inspect.signature(verb).parameters.values()
    given = {one.name: str(tmp_path / "none.jsonl") for one in parameters if one.default is one.empty}
    given |= {"detectors": {"d": "none.ckpt"}} if "detectors" in given else {}
    given |= {"input": "none.jsonl"} if verb is attack else {}
    given |= {"decodings": [Decoding("d")], "priming_tokens": [1], "test": 1} if verb is generate else {}
    with pytest.raises(UserError, match=f"{argument}`? is {value}\\b"):
        verb(**given | {argument: value})
    assert not list(tmp_path.iterdir())


def test_a_condition_that_no_text_has_is_refused(fitted, tmp_path):
    with pytest.raises(UserError, match=r'`by` names domian, which no text has; correct it. Did you mean "domain"\?'):
        report({"one": checkpoint(fitted)}, [str(fitted / "clean.jsonl")], str(tmp_path / "r"), by=["domian"])
    assert not (tmp_path / "r").exists()


def test_a_calibration_is_not_written_over_a_folder(fitted, tmp_path):
    with pytest.raises(UserError, match=r"`output` is .*, which is a folder"):
        calibrate("nowhere", checkpoint(fitted), output=str(tmp_path))


def test_a_missing_checkpoint_is_named_by_the_argument_that_gave_it(fitted, tmp_path):
    with pytest.raises(UserError, match=r"`detectors\.two` is nowhere, but there is no such file"):
        report({"one": checkpoint(fitted), "two": "nowhere"}, [str(fitted / "clean.jsonl")], str(tmp_path / "r"))
    with pytest.raises(UserError, match="A detector's checkpoint is nowhere, but there is no such file"):
        trained("nowhere")


def test_texts_of_one_id_are_told_apart_by_their_originals():
    clean = [Record("t-1", text, MACHINE) for text in ("a", "b", "c")]
    attacked = [Record("t-1", one.text.upper(), MACHINE, attack="Up", meta={"original": one.text}) for one in clean]
    human = [Record("h", "h", HUMAN)]
    scores = torch.tensor([0.0, 1, 0, 1, 0, 0, 0]).double()
    found = Evaluated("d", "D", [*human, *clean, *attacked], scores, 0.5, 0.0, 0)
    [(_, values)] = attacks(found)  # a and c are detected, and afterwards none is
    assert (values["recall_before"].mean, values["evasion"].mean) == (2 / 3, 1.0)
    assert len(found.groups.unique()) == 4 and torch.equal(found.groups[1:4], found.groups[4:])
    with pytest.raises(UserError, match="'t-1' was made of one of 3 texts with that id"):
        originals([*clean, replace(attacked[0], meta={})])


def test_an_unclear_original_is_refused_before_a_detector_is_loaded(tmp_path):
    records = [Record("t-1", text, MACHINE) for text in ("a", "b")]
    records += [Record("t-1", "A", MACHINE, attack="Up"), Record("h", "h", HUMAN)]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
    with pytest.raises(UserError, match="'t-1' was made of one of 2 texts with that id"):
        report({"one": "nowhere"}, [str(tmp_path / "one.jsonl")], str(tmp_path / "r"))
