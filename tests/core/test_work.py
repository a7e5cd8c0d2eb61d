"""Resumable work: killed at any byte, continued by other ranks, refused with other settings, and written only once."""

import ast
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import kills
import pytest

from lit_core.errors import UserError
from lit_core.files.paths import atomic_write
from lit_core.progress import progress
from lit_core.work import FinishedRows, UnfinishedWork

ROOT = Path(__file__).parents[2]
NUMBERS = list(range(5))


class Threads:
    """A group of ranks that are threads; what is broadcast is pickled, as between processes."""

    def __init__(self, world_size):
        self.meeting, self.sent = threading.Barrier(world_size), b""

    def member(self, rank):
        group = self

        class Member:
            def barrier(self, name=None):
                group.meeting.wait(30)

            def broadcast(self, obj, src=0):
                if rank == src:
                    group.sent = pickle.dumps(obj)
                group.meeting.wait(30)
                received = pickle.loads(group.sent)
                group.meeting.wait(30)
                return received

        return Member()


def unfinished(target, settings=None, rank=0, group=None, busy="busy", values=()):
    return UnfinishedWork(
        target.with_name(f".{target.name}.work"),
        key="number",
        settings={"power": 2, "names": ["a"]} if settings is None else settings,
        differs=lambda key, former, now: f"begun with {key} {former}, now {now}",
        busy=busy,
        rank=rank,
        group=group,
        values=values,
    )


def square(target, rank=0, world_size=1, group=None, before_writing=lambda folder: None):
    """Write the squares of the numbers to a file as one rank, and return which this rank computed."""

    def write(rows):
        before_writing(work.folder)
        target.write_text(json.dumps([rows[number]["square"] for number in NUMBERS]))

    with unfinished(target, rank=rank, group=group) as work:
        mine = work.missing(NUMBERS)[rank::world_size]
        for first in range(0, len(mine), 2):
            work.append({"number": number, "square": number**2} for number in mine[first : first + 2])
        work.finish(write)
        assert target.exists() and not work.folder.exists()  # on every rank
    return mine


def on_ranks(world_size, function):
    """Call a function of rank and group on each of some ranks, and return the results by rank."""
    threads = Threads(world_size)
    with ThreadPoolExecutor(world_size) as pool:
        calls = [pool.submit(function, rank, threads.member(rank)) for rank in range(world_size)]
        return [call.result() for call in calls]


def squares(target, world_size, before_writing=lambda folder: None):
    return on_ranks(world_size, lambda rank, group: square(target, rank, world_size, group, before_writing))


@pytest.mark.parametrize("before", [1, 2])
def test_killed_at_any_byte_is_as_never_killed(tmp_path, before):
    whole, target = tmp_path / "whole.json", tmp_path / "target.json"
    squares(whole, before, lambda folder: shutil.copytree(folder, tmp_path / "full"))
    journals = sorted((tmp_path / "full").glob("*.jsonl"))
    assert len(journals) == before
    for journal in journals:
        content = journal.read_bytes()
        head = content.index(b"\n")  # the version of the format
        for size in [0, head // 2, *range(head, len(content) + 1)]:
            work = tmp_path / ".target.json.work"
            shutil.copytree(tmp_path / "full", work)
            (work / journal.name).write_bytes(content[:size])
            lines = content.splitlines()
            left = [json.loads(line)["number"] for line in lines[max(1, content[:size].count(b"\n")) :]]
            computed = squares(target, 1 + size % 2)  # by one rank or two
            assert sorted(number for mine in computed for number in mine) == sorted(left)  # each once, and no other
            assert target.read_bytes() == whole.read_bytes() and not work.exists()


def test_a_process_killed_while_it_works_is_resumed(tmp_path):
    target, context = tmp_path / "target.json", multiprocessing.get_context("fork")

    def die():
        work = unfinished(target)
        work.open()
        work.append([{"number": 3, "square": 9}])
        os.kill(os.getpid(), signal.SIGKILL)

    process = context.Process(target=die)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert square(target) == [0, 1, 2, 4] and json.loads(target.read_text()) == [n**2 for n in NUMBERS]


def test_a_second_process_is_refused(tmp_path):
    target, context = tmp_path / "target.json", multiprocessing.get_context("fork")
    refusals = context.Queue()

    def enter():
        try:
            unfinished(target, busy="another one writes target.json.").open()
        except UserError as error:
            refusals.put(str(error))

    with unfinished(target) as work:
        work.append([{"number": 0, "square": 0}])
        process = context.Process(target=enter)
        process.start()
        assert refusals.get(timeout=30) == f"another one writes target.json. It is process {os.getpid()}."
        process.join(30)
        assert work.gather() == {0: {"number": 0, "square": 0}}
    assert unfinished(target).folder.exists() and square(target) == NUMBERS[1:]  # the lock was given back


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    target, context = tmp_path / "target.json", multiprocessing.get_context("fork")
    over = context.Event()
    with unfinished(target) as work:
        process = context.Process(target=over.wait, args=(60,))  # as a data loader's worker
        process.start()
        work.append([{"number": 0, "square": 0}])
    assert square(target) == NUMBERS[1:]
    over.set()
    process.join(30)


def test_other_settings_are_refused_on_every_rank_once_a_row_is_finished(tmp_path):
    target = tmp_path / "target.json"
    with unfinished(target) as work:
        work.append([{"number": 0, "square": 0}])

    def refused(rank, group):
        with pytest.raises(UserError) as error:
            unfinished(target, {"power": 3, "names": ["a"]}, rank, group).open()
        return str(error.value)

    assert on_ranks(2, refused) == ["begun with power 2, now 3"] * 2
    for settings, message in (
        ({"power": 2}, "begun with names ['a'], now None"),
        ({"power": 2, "names": ["a"], "seed": 1}, "begun with seed None, now 1"),
    ):
        with pytest.raises(UserError) as error:
            unfinished(target, settings).open()
        assert str(error.value) == message
    unfinished(target).record.unlink()  # rows of unknown settings
    with pytest.raises(UserError, match="begun with power None, now 2"):
        unfinished(target).open()


def test_settings_are_compared_by_value(tmp_path):
    work = unfinished(tmp_path / "target.json", {"ratio": float("nan"), "names": ("a", "b"), "by": {1: None}})
    with work:
        work.append([{"number": 0}])
    work.record.write_text(json.dumps(json.loads(work.record.read_text()), sort_keys=True))
    with work:
        assert work.done == {0}


def test_work_without_a_finished_row_leaves_nothing(tmp_path):
    target = tmp_path / "target.json"
    with pytest.raises(KeyboardInterrupt), unfinished(target):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    former = unfinished(target, {"power": 3})  # killed before its first row: nothing could be mixed with it
    former.folder.mkdir()
    former.record.write_text(json.dumps(former.settings))
    assert square(target) == NUMBERS


def test_what_others_begin_after_the_end_stays(tmp_path):
    with unfinished(tmp_path / "target.json") as work:
        work.append([{"number": 0}])
        assert work.finish(len) == 1
        work.folder.mkdir()
    assert work.folder.exists()


@pytest.mark.parametrize("line", ["[1, 2]", '{"piece": 3, "square": 9}', '{"number": 3}', "{", "\0\0", "\udc80"])
def test_a_damaged_line_is_set_aside_and_only_its_row_made_anew(tmp_path, line, capsys):
    target = tmp_path / "target.json"
    with unfinished(target, values=["square"]) as work:
        work.append({"number": number, "square": number**2} for number in (0, 1, 3))
    journal = work.folder / "0.jsonl"
    rows = journal.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*rows[:2], line.encode(errors="surrogateescape") + b"\n", *rows[3:]])
    journal.write_bytes(damaged)
    capsys.readouterr()
    with unfinished(target, values=["square"]) as work:
        assert work.missing(range(4)) == [1, 2] and work.gather()[3]["square"] == 9
        aside = work.folder / "0.jsonl.damaged-1"
        assert aside.read_bytes() == damaged
        said = capsys.readouterr().err
        assert "0.jsonl, line 3, is " in said and f"the file is set aside as {aside}" in said and said.count("\n") == 1
    assert square(target) == [1, 2, 4] and not work.folder.exists()


def test_a_full_disk_is_told_with_the_journal_also_where_the_work_is_left(tmp_path):
    work = FinishedRows(tmp_path, "n", busy="")
    with pytest.raises(OSError, match="No space left") as raised, work:
        work.append([{"n": 1}])
        work._journal._file.close()
        work._journal._file = open("/dev/full", "ab")
        work.append([{"n": 2}])
    assert raised.value.filename == "/dev/full"


def test_rows_of_damaged_settings_are_set_aside_with_them(tmp_path, capsys):
    target = tmp_path / "target.json"
    with unfinished(target) as work:
        work.append([{"number": 0, "square": 1}])
    work.record.write_text("{")
    with pytest.raises(KeyboardInterrupt), unfinished(target):
        raise KeyboardInterrupt
    names = {path.name for path in work.folder.iterdir()}
    assert names == {"settings.json", "settings.json.damaged-1", "0.jsonl.damaged-1"}
    assert f"it is set aside as {work.record}.damaged-1 and made anew" in capsys.readouterr().err
    assert square(target) == NUMBERS


def test_a_journal_of_a_newer_release_is_refused_and_left(tmp_path):
    with unfinished(tmp_path / "target.json") as work:
        work.append([{"number": 0}])
    journal = work.folder / "0.jsonl"
    journal.write_text(journal.read_text().replace('"version": 1', '"version": 2'))
    before = {path: path.read_bytes() for path in work.folder.iterdir()}
    with pytest.raises(UserError, match="install a newer LitShift"):
        unfinished(tmp_path / "target.json").open()
    assert {path: path.read_bytes() for path in work.folder.iterdir()} == before


def test_kept_rows_outlive_the_work_and_keys_of_other_files_do_not_count(tmp_path):
    for start, computed in ((0, ["a", "b"]), (1, ["c"])):
        with FinishedRows(tmp_path, "text", "busy", "first.*.jsonl") as rows:
            missing = rows.missing(["a", "b", "a", "c"][start : start + 3])
            assert missing == computed
            rows.append({"text": key, "score": ord(key)} for key in missing)
    assert {key: row["score"] for key, row in rows.gather().items()} == {"a": 97, "b": 98, "c": 99}
    with FinishedRows(tmp_path, "text", "busy", "second.*.jsonl") as rows:
        assert rows.missing("ab") == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["first.0.jsonl"]


def test_the_remaining_time_is_printed_once(capsys):
    costs = {"first": 1, "second": 1, "third": 10**9}
    assert list(progress(list(costs), "bar", "text", "3 texts", size=costs.__getitem__)) == list(costs)
    printed = capsys.readouterr().out
    assert printed.startswith("3 texts, about ") and printed.endswith(" to go.\n") and printed.count("about") == 1
    assert list(progress(list(costs), "bar", "text", "3 texts", False, costs.__getitem__)) == list(costs)
    assert list(progress("ab", "bar", "text", "2 texts")) == ["a", "b"] and list(progress([], "", "", "")) == []
    assert capsys.readouterr().out == ""


# No module does for itself what lit_core.work does


def appends(node):
    """Tell whether a call opens a file for appending."""
    if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) != "open":
        return False
    options = [*node.args, *(keyword.value for keyword in node.keywords)]
    modes = [option.value for option in options if isinstance(option, ast.Constant) and isinstance(option.value, str)]
    return any(0 < len(mode) <= 3 and set(mode) <= set("abt+") and "a" in mode for mode in modes) or any(
        "O_APPEND" in ast.unparse(option) for option in options
    )


def is_log_of_a_command(scope):
    """Tell whether a process writes to the file, as in ``subprocess.run(..., stdout=log)``."""
    return any(isinstance(node, ast.keyword) and node.arg == "stdout" for node in ast.walk(scope))


def is_table_or_list(scope):
    """Tell whether a writer of tables writes to the file, or plain lines of which none is missed."""
    writers = ("csv.", "CsvWriter", "file.writelines")
    return any(ast.unparse(node.func).startswith(writers) for node in ast.walk(scope) if isinstance(node, ast.Call))


def is_ledger(scope):
    """Tell whether each line carries the hash of the line before, so that a torn line is an error."""
    names = {node.value for node in ast.walk(scope) if isinstance(node, ast.Constant)}
    return {"previous", "hash"} <= names


def names_a_file_of_rows_by_rank(node):
    """Tell whether an f-string is a file name such as ``{rank}.jsonl``."""
    if not isinstance(node, ast.JoinedStr) or not node.values or not isinstance(node.values[-1], ast.Constant):
        return False
    return ".json" in str(node.values[-1].value) and any(
        isinstance(value, ast.FormattedValue) and ast.unparse(value.value).endswith("rank") for value in node.values
    )


def own_resumable_work(source):
    """Yield what a module does for itself: appending rows, files by rank, or a bar with the remaining time."""
    nodes = list(ast.walk(ast.parse(source)))
    for scope in nodes:
        if isinstance(scope, ast.FunctionDef):
            calls = [node for node in ast.walk(scope) if appends(node)]
            if calls and not (is_log_of_a_command(scope) or is_table_or_list(scope) or is_ledger(scope)):
                yield from map(ast.unparse, calls)
    yield from (ast.unparse(node) for node in nodes if names_a_file_of_rows_by_rank(node))
    if {"tqdm", "progress_bar"} & {alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names}:
        strings = (node.value for node in nodes if isinstance(node, ast.Constant))
        yield from (text for text in strings if isinstance(text, str) and text.rstrip(".").endswith(" to go"))


def test_no_other_module_writes_resumable_work_by_itself():
    ours = {ROOT / "lit_core" / "work.py", ROOT / "lit_core" / "progress.py"}
    packages = ("lit_core", "lit_detect", "lit_moe", "lit_valuation", "tools")
    files = {path for package in packages for path in (ROOT / package).rglob("*.py")}
    assert ours < files and len(files) > 200
    assert all(list(own_resumable_work(path.read_text())) for path in ours)  # they are what is looked for
    assert {
        (str(path.relative_to(ROOT)), what) for path in files - ours for what in own_resumable_work(path.read_text())
    } == set()


@pytest.mark.parametrize(
    "source",
    [
        "def f(path):\n path.open('ab+').write(json.dumps(row))",
        "def f(path):\n with open(path, mode='a') as file: file.write(json.dumps(row))",
        "def f(path):\n os.write(os.open(path, os.O_WRONLY | os.O_APPEND), line)",
        "def f(path):\n return path / f'{trainer.global_rank}.jsonl'",
        "from tqdm import tqdm\ndef f(bar):\n bar.write(f'about {duration(left)} to go.')",
    ],
)
def test_resumable_work_is_recognised(source):
    assert len(list(own_resumable_work(source))) == 1


# Nothing that is left of a removal passes for work of other settings


def end(power):
    """Do work that ends with one file in the working directory."""
    target = Path("target.json").absolute()
    with unfinished(target, {"power": power}) as work:
        if work.missing([0]):
            work.append([{"number": 0, "square": power}])
        work.finish(lambda rows: atomic_write(target, str(rows[0]["square"])))


def test_work_killed_at_any_step_is_finished_by_the_same_command_and_never_taken_by_another(tmp_path):
    count = 0
    for at, here in kills.each_end(partial(end, 2), tmp_path):
        other = shutil.copytree(here, tmp_path / "other")
        ended = kills.run(end, other, 3)
        if ended.code == 0:
            assert kills.tree(other) == {"target.json": b"3"}, at
        else:
            assert "begun with power 2, now 3" in ended.said, at
        assert kills.run(end, here, 2).code == 0, at
        assert kills.tree(here) == {"target.json": b"2"}, at
        shutil.rmtree(other)
        count += 1
    assert count > 20
