"""Whole studies through the command line: killed and resumed, with failing cells, changed, and badly written."""

import csv
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_study import main
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FOLDER = Path("runs/core/digits-smoke")
STUDY = {
    "name": "digits",
    "grids": {"clean": {"function": "small_study.nearest_centroid", "vary": {"samples": [100, 200]}}},
    "sizes": {"smoke": {"seeds": [0, 1, 2]}, "small": {"seeds": [0, 1], "values": {"samples": [60]}}},
    "claims": {
        "neighbour": {
            "text": "One neighbour beats the centroid.",
            "criteria": [
                {
                    "class_path": "lit_core.study.PairedGain",
                    "init_args": {"metric": "accuracy", "of": {"model": "neighbour"}, "over": [{"model": "centroid"}]},
                }
            ],
        },
        "mars": {"text": "It works on Mars.", "missing": "a spaceship"},
    },
    "tables": {"Accuracy": {"by": ["model", "samples"], "metrics": ["accuracy"]}},
    "figures": {"Curves": {"x": "samples", "by": "model", "metrics": ["accuracy"]}},
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def study(*flags, function=None, **changes):
    config = {**STUDY, **changes}
    if function:
        config["grids"] = {"clean": {**config["grids"]["clean"], "function": f"small_study.{function}"}}
    Path("study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return main(["study", "--config", "study.yaml", *flags])


def results():
    with (FOLDER / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_a_study_leaves_behind():
    assert study("--output", "page.md") == 0
    rows = results()
    assert len(rows) == 2 * 3 * 2 and {row["seed"] for row in rows} == {"0", "1", "2"}
    assert all(row["data"] == "digits" and len(row["config"]) == 16 and "+" in row["code"] for row in rows)
    page = Path("page.md").read_text()
    assert "| neighbour | One neighbour beats the centroid. | **reproduced** |" in page
    assert "**not testable here**: a spaceship" in page
    assert "| neighbour | 200 | 0." in page and "±" in page and "0, 1, 2" in page
    for path in ("page/curves.png", FOLDER / "report" / "curves.png"):
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(FOLDER / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == [] and events.Tags()["images"] == ["report/curves"]
    assert "reproduced" in events.Tensors("report/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_grid_with_seeds_of_its_own_and_the_setting_on_the_page():
    more = {"noisy": {**STUDY["grids"]["clean"], "arguments": {"noise": 0.5}}}
    smoke = {"seeds": [0], "grid_seeds": {"noisy": [7, 0, 8]}, "setting": "All of it in <one> room."}
    assert study(grids={**STUDY["grids"], **more}, sizes={"smoke": smoke}) == 0
    seeds = {
        grid: list(dict.fromkeys(row["seed"] for row in results() if row["grid"] == grid))
        for grid in more | {"clean": 0}
    }
    assert seeds == {"noisy": ["0", "7", "8"], "clean": ["0"]}
    lines = (FOLDER / "report.md").read_text().splitlines()
    assert "seeds 0, 7, 8, code" in lines[2] and lines[4].startswith("All of it in") and "room." in lines[4]


def test_killed_and_resumed_gives_the_results_of_a_study_never_killed(capsys):
    assert study() == 0
    expected = (FOLDER / "results.csv").read_text()
    FOLDER.rename("never-killed")
    killed = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from small_study import main; main()"
    Path("study.yaml").write_text(Path("study.yaml").read_text().replace("nearest_centroid", "deadly"))
    command = [sys.executable, "-c", killed, "study", "--config", "study.yaml"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in FOLDER.glob("*/result.json")}
    assert len(finished) == 4 and not (FOLDER / "results.csv").exists()
    capsys.readouterr()
    assert study(function="deadly") == 0
    assert "4 of 6 cells are finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    strip = [{key: value for key, value in row.items() if key != "config"} for row in results()]
    assert strip == [{k: v for k, v in row.items() if k != "config"} for row in csv.DictReader(expected.splitlines())]


def test_the_page_of_another_study_is_not_replaced(capsys):
    assert study("--output", "other.md", name="other") == 0
    before = Path("other.md").read_bytes()
    assert study("--output", "page.md") == 0  # so that it has a report of its own
    assert study("--output", "other.md") == 2
    assert "other.md, which exists already" in capsys.readouterr().err and Path("other.md").read_bytes() == before
    assert study("--output", "page.md") == 0 and study("--output", "other.md", "--overwrite") == 0


@pytest.mark.parametrize("name", ["results.csv", "report.md"])
def test_results_that_no_study_wrote_stay(name, capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / name).write_text("of something else")
    assert study() == 2
    assert f"{FOLDER} has a {name} that no study wrote" in capsys.readouterr().err
    assert [path.name for path in FOLDER.iterdir()] == [name] and (FOLDER / name).read_text() == "of something else"


def test_a_failing_cell_is_recorded_and_the_others_go_on(capsys):
    assert study(function="failing") == 1
    assert "2 of 6 cells failed, first clean-samples=100-seed=1" in capsys.readouterr().err
    assert {row["seed"] for row in results()} == {"0", "2"}
    assert "no luck with 100" in (FOLDER / "clean-samples=100-seed=1" / "error.txt").read_text()
    assert "no luck with 200" in (FOLDER / "report.md").read_text()
    Path("repaired").touch()
    assert study(function="failing") == 0
    assert len(results()) == 6 and not list(FOLDER.glob("*/error.txt"))


def test_where_all_cells_fail_a_report_is_left_as_it_was(capsys):
    Path("page.md").write_text("earlier")
    sizes = {"smoke": {"seeds": [1]}}
    assert study("--output", "page.md", "--overwrite", function="failing", sizes=sizes) == 1
    said = capsys.readouterr().err
    assert "All 2 cells failed, so no report was written" in said and "no luck with 100" in said
    assert Path("page.md").read_text() == "earlier" and not (FOLDER / "report.md").exists()


def test_only_cells_of_a_changed_config_are_run_anew():
    assert study() == 0
    before = {path: path.stat().st_mtime_ns for path in FOLDER.glob("*/result.json")}
    grids = {"clean": {**STUDY["grids"]["clean"], "vary": {"samples": [100, 80]}}}
    assert study(grids=grids) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {row["samples"] for row in results()} == {"100", "80"}
    assert study(grids={"clean": {**grids["clean"], "arguments": {"noise": 0.5}}}) == 0
    after = {path: path.stat().st_mtime_ns for path in before}
    assert all((after[path] != before[path]) == ("=100-" in str(path)) for path in before)


@pytest.mark.parametrize("damage", [b"", b'{"version": 99}', b"\xff"])
@pytest.mark.parametrize("name", ["cell.json", "result.json"])
def test_a_damaged_cell_is_set_aside_and_run_anew(name, damage, capsys):
    sizes = {"smoke": {"seeds": [0]}}
    assert study(sizes=sizes) == 0
    before, cells = results(), sorted(path.parent for path in FOLDER.glob("*/result.json"))
    (cells[0] / name).write_bytes(damage)
    assert study(sizes=sizes) == 0
    said = capsys.readouterr()
    aside = cells[0].with_name(f"{cells[0].name}.damaged-1") / name if name == "cell.json" else None
    assert (aside or cells[0] / f"{name}.damaged-1").read_bytes() == damage
    assert f"{cells[0] / name}" in said.err and "and made anew" in said.err and "1 of 2 cells are finished" in said.out
    assert results() == before


def test_sizes_have_folders_of_their_own():
    assert study("--size", "small") == 0
    assert {path.name for path in Path("runs/core/digits-small").glob("clean*")} == {
        "clean-samples=60-seed=0",
        "clean-samples=60-seed=1",
    }


def test_another_process_at_work_is_refused(capsys):
    FOLDER.mkdir(parents=True)
    handle = os.open(FOLDER, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert study() == 2
    os.close(handle)
    assert "another process runs" in capsys.readouterr().err
    assert not list(FOLDER.iterdir())


GRID = STUDY["grids"]["clean"]
BAD = {
    "size": (["--size", "smal"], {}, 'size is smal, but must be one of smoke, small. Did you mean "small"?'),
    "name": ([], {"name": "a/b"}, "name is 'a/b', but it becomes a folder"),
    "function": ([], {"grids": {"g": {"function": "small_study.nope"}}}, "grids.g.function is small_study.nope"),
    "neither": ([], {"grids": {"g": {"vary": {"a": [1]}}}}, "grids.g has neither function nor commands"),
    "unknown key": ([], {"grids": {"g": {**GRID, "vry": 1}}}, "vry is not an argument"),
    "unknown value": (
        [],
        {"grids": {"g": {**GRID, "arguments": {"noize": 1}}}},
        'noize, which is not an argument of small_study.nearest_centroid; remove it. Did you mean "noise"?',
    ),
    "type": (
        [],
        {"grids": {"g": {**GRID, "arguments": {"noise": "much"}}}},
        "grids.g.arguments.noise is much, but must be of type float",
    ),
    "type of one that varies": (
        [],
        {"grids": {"g": {**GRID, "vary": {"samples": [50, "all"]}}}},
        "grids.g.vary.samples is all, but must be of type int",
    ),
    "missing value": ([], {"grids": {"g": {"function": GRID["function"]}}}, "grids.g lacks samples"),
    "no list": ([], {"grids": {"g": {**GRID, "vary": {"samples": []}}}}, "grids.g.vary.samples is []"),
    "twice": ([], {"grids": {"g": {**GRID, "vary": {"samples": [50, 50]}}}}, "two cells are named g-samples=50-seed=0"),
    "taken": (
        [],
        {"grids": {"g": {**GRID, "arguments": {"seed": 1}}}},
        "grids.g gives seed, which the study gives itself",
    ),
    "no seeds of a grid": (
        [],
        {"sizes": {"smoke": {"seeds": [0], "grid_seeds": {"clean": []}}}},
        "grid_seeds.clean is []",
    ),
    "seeds of no grid": (
        [],
        {"sizes": {"smoke": {"seeds": [0], "grid_seeds": {"cleen": [1]}}}},
        'Did you mean "clean"?',
    ),
    "no seeds": ([], {"sizes": {"smoke": {"seeds": []}}}, "seeds is []"),
    "value of no grid": ([], {"sizes": {"smoke": {"seeds": [0], "values": {"sample": 1}}}}, 'Did you mean "samples"?'),
    "grid of a size": ([], {"sizes": {"smoke": {"seeds": [0], "grids": ["cleen"]}}}, 'Did you mean "clean"?'),
    "criterion": (
        [],
        {"claims": {"c": {"text": "x", "criteria": [{"class_path": "PairedGian"}]}}},
        'PairedGian is not the name of a known class. Did you mean "PairedGain"?',
    ),
    "placeholder": ([], {"grids": {"g": {"commands": ["fit --x $sede"]}}}, "names $sede, which the grid does not set."),
    "two fits": ([], {"grids": {"g": {"commands": ["fit", "fit"]}}}, "commands trains twice"),
}


@pytest.mark.parametrize(("flags", "changes", "message"), BAD.values(), ids=BAD)
def test_a_bad_study_is_one_sentence_and_leaves_nothing(flags, changes, message, capsys):
    assert study(*flags, **changes) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-small:")]
    assert len(error) == 1 and message in error[0], error
    assert not Path("runs").exists()
