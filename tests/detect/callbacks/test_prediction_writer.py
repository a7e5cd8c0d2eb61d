"""Predictions of a foreign module: order, abstaining, resuming, two processes."""

import csv
import json
import math

import lightning.pytorch as pl
import pytest
import torch

from lit_core.errors import UserError
from lit_core.files.paths import locked_folder
from lit_detect.callbacks import PredictionWriter
from lit_detect.callbacks.prediction_writer import WORK
from lit_detect.data.module import TextDataModule

TEXTS = [f"text number {number} " + "word " * (number % 4) for number in range(23)]


class Counter(pl.LightningModule):
    """Somebody else's module: its score is the number in the text."""

    min_tokens = 4

    def __init__(self, stop_at=None, name="a"):
        super().__init__()
        self.save_hyperparameters("name")
        self.stop_at, self.seen = stop_at, []

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        if self.stop_at is not None and batch_idx == self.stop_at:
            raise RuntimeError("killed")
        real = [row for row, index in enumerate(batch["index"].tolist()) if index >= 0]
        texts = [batch["text"][row] for row in real]
        self.seen += [int(batch["index"][row]) for row in real]
        scores = torch.tensor([math.nan if "12" in text else float(text.split()[2]) for text in texts])
        tokens = [len(text.split()) for text in texts]
        decisions = [
            "abstain" if n < 4 else "machine" if s >= 10 else "human" for n, s in zip(tokens, scores, strict=True)
        ]
        index = batch["index"][real]
        return {"index": index, "score": scores, "probability": scores / 100, "decision": decisions, "tokens": tokens}


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text"])
        table.writerows([f"id {number}", text] for number, text in enumerate(TEXTS))
    return path


def predict(texts, folder, model=None, batch_size=4, format="csv", on_error="stop", **arguments):
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    settings |= {"enable_model_summary": False, "enable_progress_bar": False, **arguments}
    trainer = pl.Trainer(**settings, callbacks=[PredictionWriter(folder, format)])
    model = model or Counter()
    texts = texts if isinstance(texts, list) else str(texts)
    data = TextDataModule(predict=texts, batch_size=batch_size, on_error=on_error)
    trainer.predict(model, data, return_predictions=False)
    return model


def read(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_the_texts_in_order(texts, tmp_path, capsys):
    predict(texts, tmp_path / "out")
    rows = read(tmp_path / "out")
    assert [int(row["index"]) for row in rows] == list(range(23))
    assert [row["id"] for row in rows] == [f"id {number}" for number in range(23)]
    for number, row in enumerate(rows):
        words = len(TEXTS[number].split())
        assert int(row["tokens"]) == words
        if number == 12:
            assert row["decision"] == "abstain" and row["score"] == ""
            assert row["reason"] in ("the score is not a finite number", "3 tokens, fewer than 4")
        elif words < 4:
            assert row["decision"] == "abstain" and row["reason"] == "3 tokens, fewer than 4"
        else:
            assert row["decision"] == ("machine" if number >= 10 else "human") and row["reason"] == ""
            assert float(row["score"]) == number and float(row["probability"]) == pytest.approx(number / 100)
    assert not (tmp_path / "out" / WORK).exists()
    said = capsys.readouterr().out
    assert "23 texts to predict." in said and "23 predictions in" in said and "documents/s" in said


def test_a_table_that_is_there_is_kept(texts, tmp_path):
    (tmp_path / "predictions.csv").write_text("of others")
    with pytest.raises(UserError, match=r"predictions\.csv, which exists already"):
        predict(texts, tmp_path)
    assert (tmp_path / "predictions.csv").read_text() == "of others" and not (tmp_path / WORK).exists()


def test_jsonl_holds_the_same(texts, tmp_path):
    predict(texts, tmp_path / "out", format="jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(23))
    assert rows[12]["score"] is None and rows[11]["score"] == 11


def test_each_row_tells_its_file_and_bad_ones_are_set_aside(texts, tmp_path, capsys):
    (tmp_path / "more.tsv").write_text("id\ttext\na\tone two three four\nb\nc\tfive six 7 eight\n")
    with pytest.raises(UserError, match=r"more\.tsv, line 3 ends a row of 1 cells"):
        predict([str(texts), f"{tmp_path}/*.tsv"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model = Counter()
    model.predict_step = lambda batch, batch_idx: {
        "index": batch["index"][batch["index"] >= 0],
        **{key: [0.5] * 4 for key in ("score", "probability")},
        **{"decision": ["human"] * 4, "tokens": [9] * 4},
    }
    predict([str(texts), f"{tmp_path}/*.tsv"], tmp_path / "out", model, on_error="skip")
    rows = read(tmp_path / "out")
    assert [(row["file"], row["row"], row["id"]) for row in rows[22:]] == [
        (str(texts), "line 24", "id 22"),
        (f"{tmp_path}/more.tsv", "line 2", "a"),
        (f"{tmp_path}/more.tsv", "line 4", "c"),
    ]
    with (tmp_path / "out/set_aside.csv").open(newline="") as file:
        ((aside),) = csv.DictReader(file)
    assert (aside["file"], aside["row"]) == (f"{tmp_path}/more.tsv", "line 3") and "1 cells" in aside["reason"]
    assert "1 bad row is set aside, with the reason:" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the list of rows that are set aside is .*set_aside\.csv, which exists"):
        (tmp_path / "out/predictions.csv").unlink()
        (tmp_path / "out/set_aside.csv").write_text("mine")
        predict(texts, tmp_path / "out", on_error="skip")


def test_what_raid_takes(texts, tmp_path):
    predict(texts, tmp_path / "out", format="raid")
    rows = json.loads((tmp_path / "out/predictions.json").read_text())
    expected = [(f"id {number}", 0.0 if number == 12 else float(number)) for number in range(23)]
    assert [(row["id"], row["score"]) for row in rows] == expected
    assert all(row.keys() == {"id", "score"} for row in rows)
    (tmp_path / "t.txt").write_text("one text 3 here")
    with pytest.raises(UserError, match=r"Text 0 \(.*t\.txt, line 1\) has no `id`, by which RAID knows a text"):
        predict(tmp_path / "t.txt", tmp_path / "other", format="raid")


class InWindows(Counter):
    """It tells p-values and windows too."""

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        outputs = super().predict_step(batch, batch_idx, dataloader_idx)
        windows = [
            [{"start": n, "end": n + 9, "score": 1.0, "flagged": n > 0} for n in (0, 5)] for _ in outputs["index"]
        ]
        return {**outputs, "windows": windows, "p_value": torch.where(outputs["index"] == 2, math.nan, 0.25)}


def test_windows_are_listed_or_counted(texts, tmp_path):
    for format in ("csv", "jsonl"):
        predict(texts, tmp_path / "out", InWindows(), format=format)
    row = read(tmp_path / "out")[2]
    assert (row["windows"], row["flagged"], row["p_value"]) == ("2", "1", "")
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[3])
    assert line["windows"][1] == {"start": 5, "end": 14, "score": 1.0, "flagged": True} and line["p_value"] == 0.25
    predict(texts, tmp_path / "foreign")
    assert (read(tmp_path / "foreign")[2]["windows"], read(tmp_path / "foreign")[2]["flagged"]) == ("", "")


def test_a_killed_run_goes_on_with_what_is_missing(texts, tmp_path, capsys):
    folder = tmp_path / "out"
    with pytest.raises(RuntimeError, match="killed"):
        predict(texts, folder, Counter(stop_at=3))
    assert not (folder / "predictions.csv").exists()
    with (folder / WORK / "0.jsonl").open("ab") as file:  # a kill in the middle of a row
        file.write(b'{"index": 12, "sco')
    second = predict(texts, folder, batch_size=5)  # another one doesn't matter
    assert second.seen == list(range(10, 23))  # in whole batches
    assert "11 texts to predict; 12 others are predicted already." in capsys.readouterr().out
    predict(texts, tmp_path / "whole")
    assert (folder / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()


def test_a_run_killed_before_its_table_only_writes_it(texts, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(RuntimeError, match="killed"):
        predict(texts, folder, Counter(stop_at=5))
    with (folder / WORK / "0.jsonl").open("ab") as file:
        for number in (20, 21, 22):
            row = {"index": number, "file": "", "row": "", "id": "", "score": 1.0, "probability": 0.5}
            row |= {"p_value": 0.5, "windows": None}
            file.write((json.dumps(row | {"decision": "human", "tokens": 9, "reason": ""}) + "\n").encode())
    assert predict(texts, folder).seen == []
    assert len(read(folder)) == 23


def test_work_of_another_detector_is_refused(texts, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        predict(texts, tmp_path / "out", Counter(stop_at=2))
    with pytest.raises(UserError, match="another detector"):
        predict(texts, tmp_path / "out", Counter(name="b"))
    texts.write_text(texts.read_text() + "id 23,one more text here\n")
    with pytest.raises(UserError, match="other texts"):
        predict(texts, tmp_path / "out")


def test_a_second_predict_into_the_same_folder_is_refused(texts, tmp_path):
    (tmp_path / WORK).mkdir()
    with locked_folder(tmp_path / WORK, ""), pytest.raises(UserError, match="is being written by another predict"):
        predict(texts, tmp_path)
    assert not list((tmp_path / WORK).iterdir())


def test_two_processes_write_what_one_writes(texts, tmp_path):
    predict(texts, tmp_path / "one")
    with pytest.raises(RuntimeError, match="killed"):  # what one process began, two end
        predict(texts, tmp_path / "two", Counter(stop_at=1))
    predict(texts, tmp_path / "two", devices=2, strategy="ddp_spawn")
    assert (tmp_path / "two" / "predictions.csv").read_bytes() == (tmp_path / "one" / "predictions.csv").read_bytes()


def test_an_unknown_format_is_refused():
    with pytest.raises(UserError, match="`format` is 'xlsx'"):
        PredictionWriter(format="xlsx")
