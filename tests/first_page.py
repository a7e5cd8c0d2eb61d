"""What TensorBoard's first page shows of a run: the walk over all that its files hold."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

#: Most scalars that come first.
FEW = 12


def event_files(folder):
    """Return the files of events in and below a folder."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*tfevents*")}


def walk(folder, charts, varied):
    """Check what TensorBoard shows of a run, and return its texts by tag.

    Args:
        folder: The run folder.
        charts: Names of the first charts of its page CUSTOM SCALARS.
        varied: Hyperparameters that its page HPARAMS must hold, with their values.
    """
    from lit_core.board.runs import read_run

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    steps = {tag: {event.step for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    answers = {tag for tag in steps if tag.startswith("answer/")}
    assert answers and len(answers) <= FEW and sorted(steps)[: len(answers)] == sorted(answers)
    assert "epoch" not in steps
    assert not {tag for tag, seen in steps.items() if len(seen) == 1} - answers
    assert "_hparams_/experiment" not in events.summary_metadata
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info.hparams
    shown = {name: value.number_value or value.string_value for name, value in session.items()}
    assert {name: shown.get(name) for name in varied} == varied
    run = read_run(Path(folder))
    assert list(next(iter(run.layout.values()))) == charts
    drawn = {chart for charts in run.layout.values() for chart, patterns in charts.items() if run.keys(patterns)}
    assert drawn & {*charts}
    text = run.texts["answer/what_to_look_at"]
    assert "?" in text and max(map(len, text.splitlines())) <= 80
    for tag in (tag for tag in steps if tag not in answers):
        assert f"answer/{tag}" not in steps
    return run.texts
