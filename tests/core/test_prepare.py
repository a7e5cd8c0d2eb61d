import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import auto_cli
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lit_core.corpora import Austen, JSONLines, TextFolder
from lit_core.corpora.base import Document
from lit_core.data.shards import ShardSet
from lit_core.data.tokens import TokenWindows
from lit_core.errors import RunFailure, UserError
from lit_core.files.working_folder import WORK
from lit_core.lm.tokenizer import Tokenizer
from lit_core.prepare import prepare

CHAPTERS = list(Austen().documents())
ARGUMENTS = {"vocab_size": 300, "tokenizer_bytes": 100_000, "shard_bytes": 30_000}


SLOW = pytest.mark.slow


def listing(root):
    """Every path below a folder with the hash of its content; the folder itself need not exist."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(Path(root).rglob("*"))
    }


def write_files(folder, chapters):
    folder.mkdir(parents=True)
    for chapter in chapters:
        (folder / f"{chapter.id.replace('/', '-')}.txt").write_bytes(chapter.text.encode())
        os.utime(folder / f"{chapter.id.replace('/', '-')}.txt", (0, 0))
    return TextFolder(str(folder), folder.name)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return [write_files(folder / "prose", CHAPTERS[:40]), write_files(folder / "more", CHAPTERS[100:110])]


@pytest.fixture(scope="module")
def prepared(corpora, tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared") / "root"
    summary = prepare(str(root), corpora, **ARGUMENTS)
    return root, summary


def tokens_of(folder):
    shards = ShardSet(folder)
    return np.concatenate([shards[number]["npy"] for number in range(len(shards))])


def documents_of(folder, tokenizer):
    """Read a split back, knowing only the format: each document ends with end-of-text, which also begins the split."""
    tokens = tokens_of(folder)
    ends = np.flatnonzero(tokens == tokenizer.end_of_text)
    assert ends[0] == 0 and ends[-1] == len(tokens) - 1
    return [tokenizer.decode(tokens[start + 1 : end]) for start, end in pairwise(ends)]


def test_every_document_comes_back_on_exactly_one_side(prepared, corpora):
    root, summary = prepared
    tokenizer = Tokenizer.load(root)
    for corpus in corpora:
        found = {split: documents_of(root / corpus.name / split, tokenizer) for split in ("train", "val", "test")}
        assert sorted(chain(*found.values())) == sorted(document.text for document in corpus.documents())
        for split, texts in found.items():
            row = summary[corpus.name][split]
            assert row["documents"] == len(texts)
            assert row["text_bytes"] == sum(len(text.encode()) for text in texts)
            assert row["tokens"] == len(tokens_of(root / corpus.name / split))
            # What bits per byte divide by: the bytes behind all tokens that are ever a target.
            assert tokenizer.byte_lengths()[tokens_of(root / corpus.name / split)[1:]].sum() == row["text_bytes"]
    assert summary["prose"]["train"]["shards"] > 5


def test_texts_that_repeat_others_are_counted(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    for number in range(9):
        (tmp_path / "texts" / f"{number}.txt").write_text(CHAPTERS[max(number, 2)].text)
    prepare(tmp_path / "root", [TextFolder(str(tmp_path / "texts"), "texts")], **ARGUMENTS)
    assert "2 documents of texts were left out, since they repeat other documents." in capsys.readouterr().out


def test_the_index_says_what_the_text_is(prepared):
    root, _ = prepared
    index = ShardSet(root / "prose" / "val").index
    assert index["kind"] == "tokens" and index["dtype"] == "uint16" and index["source"] == "prose"
    assert index["tokenizer"] == Tokenizer.load(root).describe()
    record = json.loads((root / "prose" / "prepare.json").read_text())
    texts = [document.text for document in CHAPTERS[:40]]
    assert record["text"]["documents"] == 40
    by_name = sorted(CHAPTERS[:40], key=lambda chapter: chapter.id.replace("/", "-"))
    assert record["text"]["sha256"] == hashlib.sha256("".join(c.text for c in by_name).encode()).hexdigest()
    assert record["text"]["bytes"] == sum(len(text.encode()) for text in texts)
    windows = TokenWindows(root / "prose" / "val", 64, tail=True)
    assert windows.text_bytes == index["text_bytes"] and len(windows) > 10


def test_the_tokenizer_learns_from_training_text_only(corpora, tmp_path):
    """A word that only the other splits have is no token."""
    folder = tmp_path / "texts"
    write_files(folder, CHAPTERS[:20])
    settings = {"val_fraction": 0.2, "test_fraction": 0.2, "vocab_size": 400}
    prepare(str(tmp_path / "first"), [TextFolder(str(folder), "prose")], **settings)
    tokenizer = Tokenizer.load(tmp_path / "first")
    held_out = set(documents_of(tmp_path / "first" / "prose" / "val", tokenizer))
    assert held_out
    for path in folder.iterdir():
        if path.read_text() in held_out:  # of the same size, since the division goes by size
            path.write_text(("qxqxqxqx " * 5000)[: path.stat().st_size])
    prepare(str(tmp_path / "second"), [TextFolder(str(folder), "prose")], **settings)
    second = Tokenizer.load(tmp_path / "second")
    assert any("qxqx" in text for text in documents_of(tmp_path / "second" / "prose" / "val", second))
    assert not any("qx" in token for token in second._backend.get_vocab())


def test_the_result_does_not_depend_on_the_number_of_workers(prepared, corpora, tmp_path):
    root, _ = prepared
    prepare(str(tmp_path / "root"), corpora, workers=2, **ARGUMENTS)
    assert listing(tmp_path / "root") == listing(root)


def test_a_second_time_nothing_is_done(prepared, corpora, capsys):
    root, summary = prepared
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert prepare(str(root), corpora, **ARGUMENTS) == summary
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert "unchanged" in capsys.readouterr().out


def test_a_later_corpus_is_encoded_with_the_roots_tokenizer(corpora, tmp_path):
    root = tmp_path / "root"
    prepare(str(root), corpora[:1], **ARGUMENTS)
    sha256 = Tokenizer.load(root).sha256
    before = listing(root)
    prepare(str(root), corpora, **ARGUMENTS)
    assert Tokenizer.load(root).sha256 == sha256
    assert ShardSet(root / "more" / "train").index["tokenizer"]["sha256"] == sha256
    after = listing(root)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("tokenizer", ["bytes", "file"])
def test_a_given_tokenizer(tokenizer, prepared, corpora, tmp_path):
    spec = "bytes" if tokenizer == "bytes" else str(prepared[0] / "tokenizer.json")
    summary = prepare(str(tmp_path / "root"), corpora[1:], tokenizer=spec)
    assert Tokenizer.load(tmp_path / "root").sha256 == Tokenizer.load(spec).sha256
    if tokenizer == "bytes":
        rows = summary["more"].values()
        assert all(row["tokens"] == row["text_bytes"] + row["documents"] + 1 for row in rows)


def test_large_vocabularies_are_stored_in_four_bytes(corpora, tmp_path):
    backend = Backend.from_str(json.dumps(Tokenizer.bytes()._definition))
    backend.add_tokens([f"unlikely{number}" for number in range(70_000)])
    backend.save(str(tmp_path / "tokenizer.json"))
    prepare(str(tmp_path / "root"), corpora[1:], tokenizer=str(tmp_path / "tokenizer.json"))
    assert ShardSet(tmp_path / "root" / "more" / "train").index["dtype"] == "uint32"
    assert tokens_of(tmp_path / "root" / "more" / "train").dtype == np.uint32


def test_limits_by_source(corpora, tmp_path):
    summary = prepare(str(tmp_path / "root"), corpora, max_bytes={"prose": 100_000}, tokenizer="bytes")
    taken = {name: sum(row["text_bytes"] for row in rows.values()) for name, rows in summary.items()}
    assert 99_000 < taken["prose"] <= 100_000
    assert taken["more"] == sum(len(document.text.encode()) for document in corpora[1].documents())


def test_the_splits_may_be_left_out(corpora, tmp_path):
    summary = prepare(str(tmp_path / "root"), corpora[1:], tokenizer="bytes", val_fraction=0.3, test_fraction=0)
    assert set(summary["more"]) == {"train", "val"}
    assert not (tmp_path / "root" / "more" / "test").exists()


def test_the_command_line_reads_short_names(corpora, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(
        f"root: {tmp_path / 'root'}\n"
        "corpora:\n"
        f"  - class_path: TextFolder\n    init_args: {{folder: {corpora[1].folder}, name: more}}\n"
        "max_bytes: {more: 20000}\n"
        "tokenizer: bytes\n"
    )
    arguments = {"as_positional": False, "parser_mode": "omegaconf+", "exit_on_error": False, "fail_untyped": False}
    auto_cli(prepare, args=["--config", str(tmp_path / "x.yaml"), "--seed", "3"], **arguments)
    out = capsys.readouterr().out
    assert re.search(r"more +train +\d+ +17,\d{3} ", out) and "lit-moe fit" in out
    auto_cli(prepare, args=["--root", str(tmp_path / "root"), "--verify", "true"], **arguments)
    assert "match their indices" in capsys.readouterr().out


# What goes wrong


def refuses(match, root, *args, error=UserError, **kwargs):
    before = listing(root)
    existed = Path(root).exists()
    with pytest.raises(error, match=match) as caught:
        prepare(str(root), *args, **kwargs)
    assert "\n" not in str(caught.value)
    assert listing(root) == before and Path(root).exists() == existed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_fraction": 1.5}, "val_fraction is 1.5, but must be from 0 to below 1"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"test_fraction": 0.6, "val_fraction": 0.4}, "val_fraction . test_fraction is 1.0"),
        ({"max_bytes": 0}, "max_bytes is 0"),
        ({"max_bytes": {"prase": 10}}, 'max_bytes names prase, .* Did you mean "prose"'),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"shard_bytes": 0}, "shard_bytes is 0"),
        ({"tokenizer_bytes": 0}, "tokenizer_bytes is 0"),
        ({"vocab_size": 100}, "vocab_size is 100"),
        ({"vocab_size": 300, "tokenizer": "bytes"}, "leave out one of them"),
        ({"tokenizer": "/nowhere.json"}, "tokenizer is /nowhere.json"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_change_nothing(arguments, message, corpora, tmp_path):
    refuses(message, tmp_path / "a" / "root", corpora, **arguments)


def test_no_corpora_two_of_one_name_and_no_root(corpora, tmp_path):
    refuses("corpora is empty", tmp_path / "root")
    refuses("Two corpora are named prose", tmp_path / "root", [corpora[0], corpora[0]])
    refuses("it was not written by prepare", tmp_path / "root", verify=True)
    (tmp_path / "file").write_text("x")
    refuses("which is a file", tmp_path / "file", corpora)


def test_an_empty_corpus_leaves_nothing_of_the_others(corpora, tmp_path):
    (tmp_path / "none").mkdir()
    refuses("none is empty", tmp_path / "root", [*corpora, TextFolder(str(tmp_path / "none"), "none")])


def test_a_bad_row_in_the_middle_leaves_nothing(corpora, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    bad = JSONLines(str(tmp_path / "rows.jsonl"), "rows")
    refuses("rows.jsonl, line 2", tmp_path / "root", [*corpora, bad])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenizer": "bytes"}, "was prepared with another one"),
        ({**ARGUMENTS, "vocab_size": 301}, "vocab_size is 301, but the tokenizer of .* has 300"),
        ({**ARGUMENTS, "seed": 1}, "prepared with seed 0, and now it is 1"),
        ({**ARGUMENTS, "max_bytes": 100}, "prepared with max_bytes None, and now it is 100"),
    ],
)
def test_a_root_is_not_mixed(arguments, message, prepared, corpora):
    refuses(message, prepared[0], corpora, **arguments)


def test_changed_texts_and_foreign_folders_are_noticed(tmp_path):
    corpus = write_files(tmp_path / "prose", CHAPTERS[:5])
    prepare(str(tmp_path / "root"), [corpus], tokenizer="bytes")
    (tmp_path / "prose" / "new.txt").write_text("new")
    refuses(r"prepared with corpus\.facts\.\w+ ", tmp_path / "root", [corpus])
    (tmp_path / "other" / "prose").mkdir(parents=True)
    (tmp_path / "other" / "prose" / "thesis.tex").write_text("x")
    refuses("was not made by prepare", tmp_path / "other", [corpus])


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer_training.json"])
def test_a_root_with_files_of_something_else_beside_the_tokenizer_is_refused(name, corpora, tmp_path):
    (tmp_path / name).write_text("of a model")
    with pytest.raises(UserError, match=f"{name} is there without the tokenizer.json"):
        prepare(str(tmp_path), corpora, "bytes")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "of a model"


def test_a_tokenizer_that_loses_text_is_refused(corpora, tmp_path):
    letters = {letter: number for number, letter in enumerate("▁abcdefghijklmnop")}
    backend = Backend(models.BPE(vocab={"<unk>": 17, "</s>": 18, **letters}, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    refuses(
        "does not keep the text of more", tmp_path / "root", corpora[1:], tokenizer=str(tmp_path / "tokenizer.json")
    )


def test_the_bytes_of_unknown_text_are_those_of_the_text(tmp_path):
    letters = {piece: number for number, piece in enumerate(["<unk>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"])}
    backend = Backend(models.BPE(letters, [], unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    texts = ["plain text with a 日 " + "and words " * count for count in (200, 210, 220, 230)]
    corpus = write_files(tmp_path / "prose", [Document(str(i), text) for i, text in enumerate(texts)])
    summary = prepare(str(tmp_path / "root"), [corpus], tokenizer=str(tmp_path / "tokenizer.json"))
    sizes = sum(len(path.read_bytes()) for path in (tmp_path / "prose").iterdir())
    assert sum(row["text_bytes"] for row in summary["prose"].values()) == sizes


def test_two_at_once_are_refused(prepared, corpora):
    handle = os.open(prepared[0], os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        refuses("another prepare is running", prepared[0], corpora, **ARGUMENTS)
    finally:
        os.close(handle)


def test_damage_is_found_and_named(corpora, tmp_path, capsys):
    root = tmp_path / "root"
    prepare(str(root), corpora[1:], tokenizer="bytes")
    assert prepare(str(root), verify=True)["more"]["train"]["documents"] == 8
    shard = root / "more" / "val" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    refuses("val/000000.tar is damaged", root, verify=True)
    shard.write_bytes(content[:-512])
    refuses("val/000000.tar has", root, verify=True)


# Killed, interrupted, out of room

SCRIPT = """
import sys
from lit_core.corpora import TextFolder
from lit_core.prepare import prepare
if __name__ == "__main__":
    root, workers, *folders = sys.argv[1:]
    corpora = [TextFolder(folder, folder.rsplit("/", 1)[1]) for folder in folders]
    print("ready", flush=True)
    prepare(root, corpora, workers=int(workers), **{arguments})
"""


def command(tmp_path, root, workers, corpora, before=""):
    script = tmp_path / "script.py"
    script.write_text(before + SCRIPT.replace("{arguments}", repr(ARGUMENTS)))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    folders = [str(corpus.folder) for corpus in corpora]
    return [sys.executable, str(script), str(root), str(workers), *folders], environment


@pytest.mark.parametrize(
    ("workers", "kills"), [(1, 2), pytest.param(1, 12, marks=SLOW), pytest.param(2, 6, marks=SLOW)]
)
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(workers, kills, prepared, corpora, tmp_path):
    root = tmp_path / "root"
    arguments, environment = command(tmp_path, root, workers, corpora)
    moments = random.Random(workers)
    for _ in range(kills):
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        # Until the first shards are there, and then a moment longer.
        goal = shards(root) + moments.randint(0, 2)
        while process.poll() is None and shards(root) < goal:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.05))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers_alive = children.read_text().split() if children.exists() else []
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        # What is visible is whole: no source without all its splits.
        assert all((record.parent / "test" / "index.json").exists() for record in root.glob("*/prepare.json"))
        limit = time.monotonic() + 20
        while any(alive(pid) for pid in workers_alive) and time.monotonic() < limit:
            time.sleep(0.02)
        assert not any(alive(pid) for pid in workers_alive)
    done = {path: path.stat().st_mtime_ns for path in root.rglob("*.tar") if path.with_name("index.json").exists()}
    prepare(str(root), corpora, workers=1, **ARGUMENTS)
    assert listing(root) == listing(prepared[0])
    assert all(path.stat().st_mtime_ns == moment for path, moment in done.items() if path.exists())


def shards(root):
    """Return the number of shards below a folder, in which others make and remove folders."""
    return sum(name.endswith(".tar") for _, _, names in os.walk(root) for name in names)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_ctrl_c_stops_the_workers_at_once_and_goes_on_later(prepared, corpora, tmp_path):
    for attempt in range(5):  # a busy machine may let it end before the signal
        root = tmp_path / f"root{attempt}"
        args, env = command(tmp_path, root, 2, corpora)
        process = subprocess.Popen(args, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
        while not list(root.rglob("*.tar")):
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        if process.returncode != 0:
            break
    assert process.returncode != 0
    assert "run the same command again to resume" in said and said.count("Traceback") <= 1  # the script's own
    prepare(str(root), corpora, **ARGUMENTS)
    assert listing(root) == listing(prepared[0])


def test_finished_shards_are_not_written_again(corpora, tmp_path):
    """After an interruption, which keeps what is done, as a kill does."""
    root = tmp_path / "root"
    interrupt = """
import lit_core.corpora.write as write
original, count = write.write_shard, [0]
def write_shard(*args):
    count[0] += 1
    if count[0] > 4:
        raise KeyboardInterrupt
    return original(*args)
write.write_shard = write_shard
"""
    arguments, environment = command(tmp_path, root, 1, corpora, before=interrupt)
    assert subprocess.run(arguments, env=environment, capture_output=True).returncode != 0
    first = {path.name + path.parent.name: path.stat().st_mtime_ns for path in root.rglob("*.tar")}
    assert len(first) == 4
    prepare(str(root), corpora, **ARGUMENTS)
    after = {path.name + path.parent.name: path.stat().st_mtime_ns for path in (root / "prose").rglob("*.tar")}
    assert {name: after[name] for name in first} == first


@pytest.mark.parametrize("limit", [20_000, 400_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(limit, corpora, tmp_path):
    """A limit on the size of files stands in for the disk's: it is met in the gathered text, or in a shard."""
    root = tmp_path / "root"
    before = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    )
    arguments, environment = command(tmp_path, root, 1, corpora, before)
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert "RunFailure: The disk is full" in done.stderr
    assert not root.exists()


def test_a_disk_without_room_is_noticed_before_the_work(corpora, tmp_path, monkeypatch):
    usage = os.statvfs(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000, "total": usage.f_blocks}))
    refuses("The shards need about", tmp_path / "root", corpora, error=RunFailure, **ARGUMENTS)


def test_a_dead_worker_is_one_sentence(corpora, tmp_path):
    def kill_one():
        while len(multiprocessing.active_children()) < 2:  # a death while the other is started confuses the pool
            time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    root = tmp_path / "root"
    with pytest.raises(RunFailure, match="A worker process died"):
        prepare(str(root), corpora, workers=2, **ARGUMENTS)
    killer.join()
    assert {path.name for path in root.glob("*")} <= {WORK}  # what was finished by then is taken up
    prepare(str(root), corpora, workers=2, **ARGUMENTS)
    prepare(str(tmp_path / "other"), corpora, **ARGUMENTS)
    assert listing(root) == listing(tmp_path / "other")
