"""What several test files need: real text, tiny models, small prepared data; and how the tests start commands.

Nothing heavy is imported before it is needed: the process that deals the tests to the others runs none of them.
"""

import gc
import os
import sys
import tempfile
from itertools import islice
from unittest import mock

import pytest
import warm_start

os.environ.setdefault("OMP_NUM_THREADS", "1")
#: Names under which a test tells how often it ended a command.
KILLS = ("killed", "full", "at_random")


def pytest_addoption(parser):
    parser.addoption("--cold", action="store_true", help="start Python for each command; see tests/warm_start.py")


def pytest_configure(config):
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="litshift-tests-")  # of the key and the classes typed
    gc.disable()  # what is imported while tests are collected stays
    if sys.platform == "linux" and not config.getoption("cold"):
        starts = warm_start.install()
        if config.getoption("numprocesses", None):  # the processes that run the tests start warm themselves
            starts.launch()


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(5_000, 10, 20)  # each full collection looks at all that was imported since, for 0.15 seconds
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """No test can tell what a power cut would leave, and each write would wait for the disk."""
    with mock.patch("os.fsync", lambda number: None):
        yield


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1800))  # minutes, and several times that on a busy machine


def pytest_terminal_summary(terminalreporter):
    """Tell how often each verb was killed, and found the disk full."""
    passed = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    ends = [(report.nodeid, *pair) for report in passed for pair in report.user_properties if pair[0] in KILLS]
    for node, how, count in ends:
        terminalreporter.write_line(f"{count:6} {how:<10} {node.partition('::')[0]} {node.rpartition('[')[2][:-1]}")
    if ends:
        full = sum(count for _, how, count in ends if how == "full")
        terminalreporter.write_line(f"{sum(end[2] for end in ends) - full} kills and {full} full disks in all")


@pytest.fixture(autouse=True, scope="session")
def one_quiet_thread():
    import logging

    import lightning.pytorch  # noqa: F401  # sets the level itself
    import torch

    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def own_environment(request):
    """Lightning leaves LOCAL_RANK and MASTER_PORT behind, of which the commands that later tests start would die."""
    with mock.patch.dict(os.environ), warm_start.cold_where(request.node.get_closest_marker("cold")):
        yield


@pytest.fixture(scope="session")
def token_texts():
    """The documents behind each split of `token_root`, by source and split: English prose and Python code."""
    from lit_core.corpora import Austen, PythonStdlib

    texts = {}
    for name, corpus in (("austen", Austen()), ("stdlib", PythonStdlib())):
        documents = [document.text for document in islice(corpus.documents(), 8)]
        texts[name] = {
            "train": [text[:12_000] for text in documents[:4]],
            "val": [text[:3_000] for text in documents[4:6]],
            "test": [text[:3_000] for text in documents[6:8]],
        }
    return texts


@pytest.fixture(scope="session")
def token_root(tmp_path_factory, token_texts):
    """A root of two small sources with one tokenizer."""
    from lit_core.lm.tokenizer import Tokenizer

    training = [text for splits in token_texts.values() for text in splits["train"]]
    return write_token_root(tmp_path_factory.mktemp("tokens"), token_texts, Tokenizer.train_bpe(training, 384))


@pytest.fixture(scope="session")
def byte_root(tmp_path_factory, token_texts):
    """The same texts with another tokenizer."""
    from lit_core.lm.tokenizer import Tokenizer

    return write_token_root(tmp_path_factory.mktemp("bytes"), token_texts, Tokenizer.bytes())


def write_token_root(root, texts, tokenizer):
    import numpy as np

    from lit_core.data import write_index, write_shard

    tokenizer.save(root / "tokenizer.json")
    for name, splits in texts.items():
        for split, documents in splits.items():
            folder = root / name / split
            rows = [[tokenizer.end_of_text] if number == 0 else [] for number in range(len(documents))]
            samples = [
                {
                    "__key__": f"{number:06d}",
                    "npy": np.array([*row, *tokenizer.encode(text), tokenizer.end_of_text], dtype=np.uint16),
                    "__text_bytes__": len(text.encode()),
                }
                for number, (row, text) in enumerate(zip(rows, documents, strict=True))
            ]
            folder.mkdir(parents=True)
            entry = write_shard(folder / "000000.tar", samples)
            write_index(
                folder,
                [entry],
                kind="tokens",
                source=name,
                split=split,
                tokenizer=tokenizer.describe(),
                dtype="uint16",
            )
    return root


@pytest.fixture
def byte_data():
    from byte_run import ByteData

    return ByteData


@pytest.fixture
def byte_model():
    from byte_run import ByteModel

    return ByteModel


@pytest.fixture
def make_trainer(tmp_path):
    """Makes quiet CPU trainers that log every step to `metrics.csv` below the test's folder."""
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    from lit_core.data import ResumeStream

    def make(*callbacks, name="run", **arguments):
        logger = CSVLogger(tmp_path / name, name="", version="", flush_logs_every_n_steps=1)
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": logger,
            "log_every_n_steps": 1,
            "max_steps": 3,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path / name,
            "callbacks": [ResumeStream(), *callbacks],
        }
        return pl.Trainer(**{**settings, **arguments})

    return make


@pytest.fixture
def read_metrics(tmp_path):
    """Reads what a trainer of `make_trainer` logged: (step, value) pairs by key."""
    import csv

    def read(name="run"):
        metrics = {}
        with (tmp_path / name / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for key, value in row.items():
                    if value and key not in ("step", "epoch"):
                        metrics.setdefault(key, []).append((int(row["step"]), float(value)))
        return metrics

    return read
