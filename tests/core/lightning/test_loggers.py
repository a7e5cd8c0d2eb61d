import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_core.lightning.loggers import CSVLog, EventLog, run_loggers


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_key_widens_the_file_and_keeps_the_rows(tmp_path):
    log = CSVLog(tmp_path)
    log.log_metrics({"train/loss": 2.0}, 0)
    log.log_metrics({"val/austen/loss": 3.0}, 0)
    log.log_metrics({"train/loss": 1.0}, 1)
    assert [(row["step"], row["train/loss"], row["val/austen/loss"]) for row in rows(tmp_path)] == [
        ("0", "2", ""),
        ("0", "", "3"),
        ("1", "1", ""),
    ]


def test_the_same_step_and_keys_are_one_row(tmp_path):
    log = CSVLog(tmp_path)
    log.log_metrics({"a": 1.0}, 4)
    log.log_metrics({"b": 5.0}, 4)
    log.log_metrics({"a": 1.0}, 4)
    log.log_metrics({"a": 2.0}, 4)
    assert [(row["a"], row["b"]) for row in rows(tmp_path)] == [("", "5"), ("2", "")]


def test_a_resume_appends_and_cuts_what_came_after_the_checkpoint(tmp_path):
    first = CSVLog(tmp_path)
    for step in range(6):
        first.log_metrics({"a": float(step)}, step)
    second = CSVLog(tmp_path, resume_step=4)
    for step in range(4, 8):
        second.log_metrics({"a": 10.0 * step}, step)
    assert [row["a"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "40", "50", "60", "70"]


def test_a_row_torn_by_a_kill_is_dropped(tmp_path):
    CSVLog(tmp_path).log_metrics({"a": 1.0}, 0)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1,0.2")
    log = CSVLog(tmp_path, resume_step=1)
    log.log_metrics({"a": 2.0}, 1)
    assert [(row["step"], row["a"]) for row in rows(tmp_path)] == [("0", "1"), ("1", "2")]


def test_a_second_process_replaces_the_row_of_the_same_test(tmp_path):
    CSVLog(tmp_path).log_metrics({"test/loss": 1.0}, 7)
    CSVLog(tmp_path).log_metrics({"test/loss": 1.0}, 7)
    CSVLog(tmp_path).log_metrics({"test/loss": 2.0}, 7)
    assert [row["test/loss"] for row in rows(tmp_path)] == ["2"]


def test_tensorboard_shows_a_row_once_and_not_what_came_after_the_checkpoint(tmp_path):
    first = EventLog(tmp_path)
    for step in (0, 1, 1, 2, 3):  # the row of step 1 is written early, with a checkpoint, and again
        first.log_metrics({"a": float(step)}, step)
    first.finalize("success")
    second = EventLog(tmp_path, resume_step=2)
    for step in (2, 3):
        second.log_metrics({"a": 10.0 * step}, step)
    second.finalize("success")
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in shown.Scalars("a")] == [(0, 0.0), (1, 1.0), (2, 20.0), (3, 30.0)]


def test_a_test_of_a_run_that_goes_on_harms_neither(tmp_path):
    fit, test = CSVLog(tmp_path), CSVLog(tmp_path)
    fit.log_metrics({"train/loss": 3.0}, 0)
    test.log_metrics({"test/loss": 9.0}, 0)
    fit.log_metrics({"train/loss": 2.0}, 1)
    fit.log_metrics({"val/loss": 5.0}, 1)
    fit.log_metrics({"val/loss": 6.0}, 1)
    test.log_metrics({"test/loss": 9.0, "test/other": 8.0}, 1)
    fit.log_metrics({"train/loss": 1.0}, 2)
    found = [{key: value for key, value in row.items() if value} for row in rows(tmp_path)]
    assert found == [
        {"step": "0", "train/loss": "3"},
        {"step": "0", "test/loss": "9"},
        {"step": "1", "train/loss": "2"},
        {"step": "1", "val/loss": "6"},
        {"step": "1", "test/loss": "9", "test/other": "8"},
        {"step": "2", "train/loss": "1"},
    ]


def test_hyperparameters_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A kill, or a full disk, left an empty file, which later commands took for the hyperparameters."""
    EventLog(tmp_path).log_hyperparams({"a": 1})
    written = (tmp_path / "hparams.yaml").read_text()
    assert "a: 1" in written

    def torn(path, params):
        Path(path).write_text("")
        raise OSError("No space left on device")

    monkeypatch.setattr("lit_core.lightning.loggers.save_hparams_to_yaml", torn)
    with pytest.raises(OSError, match="No space"):
        EventLog(tmp_path).log_hyperparams({"a": 2})
    assert (tmp_path / "hparams.yaml").read_text() == written


def test_an_evaluation_that_logs_no_hyperparameters_writes_no_file_of_them(tmp_path):
    logger = EventLog(tmp_path)
    logger.log_metrics({"x": 1.0}, 1)
    logger.finalize("success")
    assert not (tmp_path / "hparams.yaml").exists()


def shown_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    scalars = {tag: sorted((one.step, one.value) for one in events.Scalars(tag)) for tag in events.Tags()["scalars"]}
    return scalars, {
        tag: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
    }


def logged(folder, rows, resume_step=None, status="success", answers=()):
    loggers = run_loggers(folder, resume_step)
    loggers[0].answers = lambda: answers
    for step, metrics in rows:
        for logger in loggers:
            logger.log_metrics({**metrics, "epoch": 0.0}, step)
    for logger in loggers:
        logger.finalize(status)


def test_what_is_logged_once_is_a_text_until_it_has_a_second_step(tmp_path):
    logged(tmp_path, [(0, {"train/loss": 3.0}), (1, {"train/loss": 2.0, "val/loss": 1.0})])
    scalars, texts = shown_of(tmp_path)
    assert scalars == {"train/loss": [(0, 3.0), (1, 2.0)]}
    assert "val/loss" in texts["once/val/text_summary"] and "epoch" not in str(texts)
    logged(tmp_path, [(1, {"test/loss": 5.0})])
    logged(tmp_path, [(1, {"test/loss": 5.0})])  # the same test again
    assert shown_of(tmp_path)[0] == scalars
    logged(tmp_path, [(2, {"train/loss": 1.5}), (3, {"val/loss": 0.5})], resume_step=2)
    logged(tmp_path, [(3, {"test/loss": 4.0})])
    scalars, _ = shown_of(tmp_path)
    assert scalars["train/loss"] == [(0, 3.0), (1, 2.0), (2, 1.5)]
    assert scalars["val/loss"] == [(1, 1.0), (3, 0.5)] and scalars["test/loss"] == [(1, 5.0), (3, 4.0)]


def test_a_single_value_from_before_a_kill_is_not_lost(tmp_path):
    loggers = run_loggers(tmp_path, None)
    for logger in loggers:
        logger.log_metrics({"val/loss": 1.0}, 0)  # and killed
    logged(tmp_path, [(2, {"train/loss": 1.5})], resume_step=2)
    assert "val/loss" in shown_of(tmp_path)[1]["once/val/text_summary"]


def test_a_file_that_somebody_has_edited_ends_no_training(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,val/loss\n0,three\n1,2.0\n")
    logged(tmp_path, [(2, {"val/loss": 1.5})], resume_step=2)
    assert shown_of(tmp_path)[0] == {"val/loss": [(1, 2.0), (2, 1.5)]}


def test_the_answers_come_first_and_at_once(tmp_path):
    logged(tmp_path, [(0, {"val/a.b/loss": 3.0, "val/loss_2": 1.0})], answers=["val/[^/]+/loss"])
    assert shown_of(tmp_path)[0] == {"answer/val/a.b/loss": [(0, 3.0)]}


def test_nothing_to_show_is_no_file(tmp_path):
    logged(tmp_path, [])
    for logger in run_loggers(tmp_path, None):
        logger.log_hyperparams({"a": 1})
        _ = logger.experiment if isinstance(logger, EventLog) else None  # as Lightning does
        logger.save()
        logger.finalize("success")
    assert {path.name for path in tmp_path.iterdir()} == {"hparams.yaml"}
