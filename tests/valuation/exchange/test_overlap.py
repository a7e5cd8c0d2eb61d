"""What owner and trainer have in common is left out and counted, whoever has it, and nobody is refused for it."""

import csv
import dataclasses
import json

import pytest
import torch
from crossing import answer, checkpoint
from sklearn.datasets import load_digits
from test_tampering import forge

from lit_core.errors import UserError
from lit_valuation.commands.rank import rank
from lit_valuation.data.copies import CopyFinder
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.exchange.acceptance import load_trainer_data
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.judging import judge
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.samples import Samples, merge_samples
from lit_valuation.selectors import RandomSelector
from lit_valuation.training.loading import load_task


def renamed(samples, prefix):
    return dataclasses.replace(samples, keys=tuple(f"{prefix}{key}" for key in samples.keys), groups=None)


def noisy(samples, seed=0):
    """The samples with other values everywhere, darker and with noise."""
    change = 0.02 * torch.randn(samples.x.shape, generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(samples, x=(samples.inputs() * 0.9 + change).mul(255).clamp(0, 255).to(torch.uint8))


@pytest.fixture
def parts(place):
    """The trainer's sets by name, of the classes asked for, and samples that only the owner has."""
    asked = list(incoming(place / "query", Query).manifest.contents.classes)
    entry = SharingLedger(place / "data/trainer/ledger.jsonl").entries()[0]
    val = LabelledSet(place / "data/trainer/val").load()
    of_keys = {key: index for index, key in enumerate(val.keys)}
    hard = [*entry.samples, *entry.notes["held_out"]]
    found = {
        "queries": val.take([of_keys[key] for key in entry.samples]),
        "held-out hard cases": val.take([of_keys[key] for key in entry.notes["held_out"]]),
        "validation set": val.take([i for i, key in enumerate(val.keys) if key not in hard]),
        "test set": LabelledSet(place / "data/trainer/test").load(),
        "training set": LabelledSet(place / "data/trainer/train").load(),
    }
    mine = incoming(place / "answer_1", Answer).samples
    return {name: part.of_classes(asked) for name, part in found.items()} | {"mine": renamed(mine, "mine")}


@pytest.fixture
def judged(place):
    """Judges answers and records what was received, without training."""

    def judge_all(near=0.25, fewest=1, **answers):
        book, task = SharingLedger(place / "data/trainer/ledger.jsonl"), load_task(checkpoint(place))
        query = incoming(place / "query", Query)
        own = load_trainer_data(place / "data/trainer", book, query, task)
        paths = {name: str(place / folder) for name, folder in answers.items()}
        given = {"digests": {}, "near": near, "fewest": fewest, "encoder": None, "weights": "equal"}
        found = judge(paths, query, own, book, task, **given)
        found.record(book, query)
        return found

    return judge_all


def mixed(place, parts):
    """An honest answer with what the trainer has."""
    few = [renamed(parts["mine"].take(range(4)), "m")]
    for name, count in (("queries", 2), ("held-out hard cases", 1), ("validation set", 1), ("test set", 2)):
        few.append(renamed(parts[name].take(range(count)), name))
    few.append(renamed(noisy(parts["training set"].take(range(1))), "train"))
    return forge(place, merge_samples(few), "mixed").name


def test_an_honest_owner_who_has_what_the_trainer_has(place, parts, judged):
    found = judged(alice=mixed(place, parts), bob="answer_5")
    assert not found.refused and found.left_out
    assert {name: len(item.samples) for name, item in found.ranked.items()} == {"alice": 4, "bob": 12}
    assert found.notes == {
        "alice": "7 of its 11 samples are yours, and do not count: "
        "2 of the queries (2 equal, 0 nearly), 1 of the held-out hard cases (1 equal, 0 nearly), "
        "2 of the test set (2 equal, 0 nearly), 1 of the validation set (1 equal, 0 nearly), "
        "1 of the training set (0 equal, 1 nearly)"
    }
    entries = {e.counterparty: e for e in SharingLedger(place / "data/trainer/ledger.jsonl").entries()[-2:]}
    assert len(entries["alice"].samples) == 11 and "overlaps" not in entries["bob"].notes
    assert entries["alice"].notes["overlaps"]["queries"] == {"equal": 2, "near": 0}
    assert entries["alice"].notes["overlaps"]["training set"] == {"equal": 0, "near": 1}


@pytest.mark.slow  # trains; what it shows is judged without training above
def test_report_and_table_say_so(place, parts, capsys):
    given = {"answers": {"alice": str(place / mixed(place, parts)), "bob": str(place / "answer_5")}, "seeds": 2}
    given |= {"ckpt_path": checkpoint(place), "data": str(place / "data/trainer"), "output": str(place / "ranking")}
    assert rank(str(place / "query"), **given) == 3
    with (place / "ranking/ranking.csv").open() as file:
        rows = {row["owner"]: (row["samples"], row["left out"]) for row in csv.DictReader(file)}
    assert rows == {"alice": ("4", "7"), "bob": ("12", "0"), "(nothing shared)": ("0", "0")}
    sentence = "7 of its 11 samples are yours, and do not count: 2 of the queries (2 equal, 0 nearly)"
    assert f"alice: {sentence}" in capsys.readouterr().out
    assert sentence in (place / "ranking/report.html").read_text()
    # a ranking of a former release, which refused copies
    record = json.loads((place / "ranking/run.json").read_text())
    del record["work"]["fewest"]
    (place / "ranking/run.json").write_text(json.dumps(record | {"work": record["work"] | {"copies": 0}}))
    with pytest.raises(UserError, match="holds the results of other fewest; give another folder, or add --overwrite"):
        rank(str(place / "query"), **given)


def test_an_answer_of_nothing_but_the_trainers_samples(place, parts, judged):
    answers, counts = {"bob": "answer_5"}, {}
    for part in ("test set", "training set", "queries", "held-out hard cases", "validation set"):
        taken = parts[part].take(range(min(12, len(parts[part]))))
        for kind, samples in (("equal", taken), ("changed", noisy(taken))):
            name = f"{kind} {part}"
            answers[name], counts[name] = forge(place, samples, name).name, len(taken)
    found = judged(**answers)
    assert set(found.ranked) == {"bob"} and set(found.refused) == set(counts)
    for name, n in counts.items():
        assert f"has no sample that counts: {n} of its {n} samples are yours" in found.refused[name]
        assert f" of the {name.partition(' ')[2]}" in found.refused[name]
        assert found.refused[name].endswith("for another answer.")


def test_what_remains_too_small_is_refused(place, parts, judged):
    found = judged(alice=mixed(place, parts), bob="answer_5", fewest=5)
    assert set(found.ranked) == {"bob"}
    assert "has only 4 samples that count, but --fewest is 5: 7 of its 11 samples are yours" in found.refused["alice"]


@pytest.mark.parametrize("near", [0.25, 0])
def test_an_owner_keeps_what_the_query_has(place, parts, near, capsys):
    home = place / "data/owners/owner_1/train"
    mine, queries = LabelledSet(home).load(), renamed(parts["queries"], "query-")
    changed = renamed(noisy(queries), "noisy-")
    held = merge_samples([dataclasses.replace(mine, groups=None), queries, changed])
    write_labelled(place / "rich/train", held, source="", split="train", licence="", origin="")
    given = {"data": str(place / "rich"), "output": str(place / "new"), "limit": 12, "near": near}
    n = len(queries)
    answer(place, 1, dry_run=True, **given)
    answer(place, 1, **given)
    said = capsys.readouterr().out
    almost = n if near else 0
    assert said.count(f"Left out: {n} of your samples are equal to a query and {almost} nearly.") == 2
    entry = SharingLedger(place / "rich/ledger.jsonl").entries()[-1]
    assert entry.notes["left_out"] == {"equal": n, "near": almost}
    shared = set(entry.samples)
    assert len(shared) == 12 and not shared & set(queries.keys)
    assert bool(shared & set(changed.keys)) == (near == 0)
    chosen = {"selector": RandomSelector(), "encoder": None, "output": str(place / "again"), "limit": 200}
    answer(place, 1, **given | chosen)  # none by whatever selector
    given_away = {k for e in SharingLedger(place / "rich/ledger.jsonl").entries() for k in e.samples}
    assert not given_away & set(queries.keys)


def test_an_owner_of_queries_only_has_nothing_to_share(place, parts):
    write_labelled(place / "poor/train", parts["queries"], source="", split="train", licence="", origin="")
    with pytest.raises(UserError, match="equal or nearly equal to a query, so there is nothing to share"):
        answer(place, 1, data=str(place / "poor"), output=str(place / "new"))


def test_clones_are_named(place, parts, judged):
    forge(place, parts["mine"].take([*range(1, 12), 0]), "turned")
    found = judged(alice="answer_1", eve="turned", bob="answer_5")
    assert set(found.ranked) == {"bob"} and not found.notes
    for name, other in (("alice", "eve"), ("eve", "alice")):
        counted = f"12 of its 12 samples are in the answer of {other} too, and count for neither; "
        assert counted + f"it and the answer of {other} are clones" in found.refused[name]


def test_near_clones_and_parts_are_named(place, parts, judged):
    forge(place, noisy(parts["mine"]), "noisy"), forge(place, parts["mine"].take(range(5)), "part")
    found = judged(alice="answer_1", eve="noisy", carl="part", bob="answer_5")
    assert set(found.ranked) == {"bob"}
    assert "it and the answer of eve are near clones" in found.refused["alice"]
    assert "it has all of the answer of carl" in found.refused["alice"]
    assert "all of it is in the answer of alice" in found.refused["carl"]


@pytest.mark.parametrize("n_cases", [2, 40])
def test_hard_cases_far_from_all_training_data_do_not_make_honest_samples_copies(n_cases):
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 16
    own, cases, honest = digits[:400], 1 - digits[400 : 400 + n_cases], 1 - digits[500:700]
    changed = cases * 0.9 + 0.01 * torch.randn(cases.shape, generator=torch.Generator().manual_seed(0))

    def samples(x):
        return Samples(x, torch.zeros(len(x), dtype=torch.int64), ("any",), tuple(map(str, range(len(x)))))

    finder = CopyFinder(samples(own), samples(cases), 0.25)
    found = finder.all(finder.prepare(samples(torch.cat([changed, honest]))), finder.prepare(samples(cases)))
    assert found[:n_cases].all() and not found[n_cases:].any()
