"""What each party learns: queries and answers of every kind hold what docs/exchange.md lists, and nothing else."""

import re
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from opened import entries
from own_llama import Llama

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_valuation import ClassifierTask, MultiLabelTask, RegressionTask, TaggingTask
from lit_valuation.commands.query import Gradients, query
from lit_valuation.commands.select import select
from lit_valuation.data.labelled_sets import INPUTS, LabelledSet, write_labelled
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.encoders import Identity, TokenCounts
from lit_valuation.nn import MLP, TokenConvNet
from lit_valuation.samples import NEXT_TOKEN, NO_TOKEN, Samples, Target, next_tokens
from lit_valuation.selectors import FuncFeatSelector, GradientMatchingSelector

PAGE = (Path(__file__).parents[3] / "docs/exchange.md").read_text()
TASKS = {"class": ClassifierTask, "labels": MultiLabelTask, "values": RegressionTask, "tags": TaggingTask}
SHAPES = {"image": (1, 6, 6), "table": (5,), "embedding": (5,), "tokens": (12,)}


class Hashed(Identity):
    """An encoder with weights, as far as manifests know."""

    sha256 = "1" * 64


#: What is written into each party's own files, and never crosses.
PRIVATE = ("secret-key", "secret-group", "secret-source", "secret-origin", "secret-split")


def listed():
    """Return the entries of the page's table: for each, what holds it."""
    section = PAGE[PAGE.index("### Every entry, from the bytes") :]
    table = re.search(r"\n\n(\|.*?)\n\n", section, re.DOTALL)[1]
    found = defaultdict(set)
    for line in table.splitlines()[2:]:
        file, names, holders = (re.findall("`([^`]+)`", cell) for cell in re.split(r"(?<!\\)\|", line)[1:4])
        words = re.split(r"(?<!\\)\|", line)[3]
        assert len(file) == 1 and not holders, line
        for name in names:
            found[file[0], name] |= {"query", "answer"} if "both" in words else set(re.findall("query|answer", words))
    return dict(found)


def drawn(target, kind, n, seed):
    """Return random samples of a kind, with keys and groups that are nobody else's business."""
    draw = torch.Generator().manual_seed(seed)
    if kind == "image":
        x = torch.randint(0, 256, (n, *SHAPES[kind]), generator=draw).to(torch.uint8)
    elif kind == "tokens":
        x = torch.randint(0, 200, (n, *SHAPES[kind]), generator=draw)
        x[::2, 9:] = NO_TOKEN
    else:
        x = torch.randn(n, *SHAPES[kind], generator=draw)
    has_token = x != NO_TOKEN
    classes = ("ant", "bee", "cat")
    if target == "class":
        y = torch.arange(n) % 3
    elif target == "tags":
        y = torch.randint(0, 3, x.shape, generator=draw).where(has_token, -100)
    elif target == "text":
        y, classes = next_tokens(x), (NEXT_TOKEN,)
    else:
        y = torch.randn(n, 3, generator=draw)
        y = (y > 0).float() if target == "labels" else y
    keys = tuple(f"secret-key-{seed}-{number}" for number in range(n))
    return Samples(x, y, classes, keys, ("secret-group",) * n, target)


def prepare(folder, target, kind, seed):
    meta = {"input": kind}
    meta |= {"columns": [f"column {number}" for number in range(5)]} if kind == "table" else {}
    meta |= {"encoder": {"name": "MiniLM", "sha256": "0" * 64}} if kind == "embedding" else {}
    meta |= {"vocabulary": "257 tokens, abc"} if kind == "tokens" else {}
    about = {"source": "secret-source", "split": "secret-split", "licence": "CC0", "origin": "secret-origin"}
    for split, n in (("train", 30), ("val", 48)):
        write_labelled(folder / split, drawn(target, kind, n, seed + n), **about, meta=meta)


def trained(folder, target, quiet):
    torch.manual_seed(0)
    data = OwnersDataModule(str(folder), batch_size=15)
    if target == "text":
        module = Llama()
    else:
        network = TokenConvNet(data.input_shape, data.n_classes, 257) if target == "tags" else None
        network = network or MLP(data.input_shape, data.n_classes, [4])
        module = TASKS[target](network, data.classes, data.input_shape)
    trainer = quiet(ResumeStream(), max_steps=1, max_epochs=-1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(folder.parent / f"{folder.name}.ckpt")


def exchanged(place, target, kind, gradients, of_owner):
    """Ask and answer; return the folders that cross, none where this is refused."""
    ours = "own_llama.Llama" if target == "text" else None
    encoder = TokenCounts(32) if kind == "tokens" else Hashed() if kind == "image" else Identity()
    asked = {"gradients": gradients, "model": ours, "per_class": 6, "budget": 12, "output": str(place / "query")}
    asked |= {} if target == "class" else {"worst": 0.5}
    asked |= {"encoder": encoder, "clip": 1.0, "epsilon": 8.0} if gradients == "probe" else {}
    try:
        query(str(place / "trainer.ckpt"), str(place / "trainer"), ["north"], **asked)
    except UserError as error:
        assert (target, gradients) == ("text", "trainer") or (target != "class" and gradients == "probe"), error
        return {}
    given = {"data": str(place / "north"), "to": "trainer", "limit": 50, "output": str(place / "answer")}
    given |= {"selector": FuncFeatSelector() if of_owner else GradientMatchingSelector(rest="fill")}
    given |= {"encoder": encoder} if of_owner or gradients == "probe" else {}
    given |= {"ckpt_path": str(place / "north.ckpt"), "model": ours} if of_owner else {}
    select(str(place / "query"), **given)
    return {"query": place / "query", "answer": place / "answer"}


@pytest.mark.slow
def test_the_page_lists_every_entry_of_all_that_crosses(tmp_path, quiet):
    found = defaultdict(set)
    kinds = [(t, k) for t, k in product(get_args(Target), INPUTS) if (k == "tokens") == (t in ("tags", "text"))]
    for (target, kind), gradients in product(kinds, get_args(Gradients)):
        place = tmp_path / f"{target}-{kind}-{gradients}"
        for seed, party in enumerate(("trainer", "north")):
            prepare(place / party, target, kind, 100 * seed)
            if party == "trainer" or gradients == "owner":
                trained(place / party, target, quiet)
        for holder, folder in exchanged(place, target, kind, gradients, gradients == "owner").items():
            for file, names in entries(folder).items():
                for name in names:
                    found[file, name].add(holder)
            whole = b"".join(path.read_bytes() for path in folder.iterdir())
            private = (*PRIVATE, str(tmp_path), "trainer", "north", *(["column 0"] if holder == "answer" else []))
            assert not [word for word in private if word.encode() in whole], folder
            _holds_only_what_was_chosen(place, holder, gradients)
    assert dict(found) == listed()


def _holds_only_what_was_chosen(place, holder, gradients):
    """Compare the inputs that crossed with those at home: hard cases that are not held out, samples of train."""
    if (holder, gradients) == ("query", "probe"):
        return
    home = LabelledSet(place / ("trainer/val" if holder == "query" else "north/train")).load()
    sent = LabelledSet(place / holder).load()
    own = {x.numpy().tobytes() for x in home.x}
    assert len(sent) <= 18 and {x.numpy().tobytes() for x in sent.x} <= own and len(sent) < len(home)
