"""A probe in place of hard cases: what it holds and hides, what is refused, and that answers to it can be ranked."""

import json

import numpy as np
import pytest
import torch
from crossing import answer, ask, checkpoint
from forging import canonical
from torch import nn
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.data.hard_cases import HardCases
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.encoders import Identity, embed
from lit_valuation.exchange.acceptance import accept
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Attachment, Query
from lit_valuation.exchange.probe import (
    ProbeOptions,
    ReceivedProbe,
    head_gradients,
    load_probe,
    make_probe,
    spent_privacy,
)
from lit_valuation.selectors import FeatureSimilaritySelector, GradientMatchingSelector, Pool, RandomSelector
from lit_valuation.sources import Digits

GIVEN = {"gradients": "probe", "encoder": Identity(), "per_class": 8, "fewest": 3}
MATCHING = {"selector": GradientMatchingSelector(), "limit": 60}


@pytest.fixture(scope="module")
def data():
    """A training set and hard cases: 5 to 12 of four classes, 2 of a fifth."""
    digits = Digits().samples()
    rows = {c: (digits.y == c).nonzero().squeeze(1) for c in range(5)}
    sizes = dict(zip(rows, (5, 8, 9, 12, 2), strict=True))
    queries = digits.take(torch.cat([rows[c][-size:] for c, size in sizes.items()]))
    held_out = digits.take(torch.cat([rows[c][-size - 3 : -size] for c, size in sizes.items()]))
    return digits.take(range(150)), HardCases(queries, held_out)


def by_autograd(stack, queries, clip=None):
    """The sum of the gradients of some queries at a head, one backward pass after the other."""
    head = nn.Linear(stack.shape[2] - 1, stack.shape[1])
    with torch.no_grad():
        head.weight.copy_(stack[0, :, :-1])
        head.bias.copy_(stack[0, :, -1])
    total = torch.zeros(stack.shape[1:])
    for x, y in zip(embed(Identity(), queries.x), queries.y, strict=True):
        head.zero_grad()
        F.cross_entropy(head(x[None]), y[None]).backward()
        gradient = torch.cat([head.weight.grad, head.bias.grad[:, None]], dim=1)
        total += gradient if clip is None else gradient * min(1.0, clip / float(gradient.norm()))
    return total


def stack_of(made, tmp_path):
    (tmp_path / "probe.npy").write_bytes(made.content)
    return torch.from_numpy(np.load(tmp_path / "probe.npy", allow_pickle=False))


@pytest.mark.parametrize("clip", [None, 0.5])
def test_sums_are_those_of_autograd(data, clip, tmp_path):
    train, cases = data
    made = make_probe(train, cases, Identity(), ProbeOptions(fewest=4, clip=clip))
    stack = stack_of(made, tmp_path)
    assert [(one.label, one.queries) for one in made.manifest.targets] == [("0", 5), ("1", 8), ("2", 9), ("3", 12)]
    assert made.left_out == {"4": 2} and made.manifest.classes == train.classes
    for name, total in zip("0123", stack[1:], strict=True):
        torch.testing.assert_close(
            total, by_autograd(stack, cases.queries.of_classes([name]), clip), atol=1e-5, rtol=1e-4
        )
    assert set(made.cases.queries.y.tolist()) == set(made.cases.held_out.y.tolist()) == {0, 1, 2, 3}


def test_clusters_divide_the_sum_of_a_class_and_none_is_small(data, tmp_path):
    train, cases = data
    whole, parts = (make_probe(train, cases, Identity(), ProbeOptions(n, 4)) for n in (1, 3))
    sizes = {}
    for one in parts.manifest.targets:
        sizes.setdefault(one.label, []).append(one.queries)
    assert sizes == {"0": [5], "1": [4, 4], "2": [4, 5], "3": [6, 6]}
    sums = stack_of(parts, tmp_path)[1:]
    for number, name in enumerate("0123"):
        of_class = sum(total for total, one in zip(sums, parts.manifest.targets, strict=True) if one.label == name)
        torch.testing.assert_close(of_class, stack_of(whole, tmp_path)[1 + number], atol=1e-5, rtol=1e-4)


def test_noise_has_the_deviation_that_is_said_and_nobody_can_repeat_it(data, tmp_path):
    train, cases = data
    options = ProbeOptions(fewest=4, clip=0.5, epsilon=2.0)
    clean = stack_of(make_probe(train, cases, Identity(), ProbeOptions(fewest=4, clip=0.5)), tmp_path)
    noise = []
    for _ in range(2):
        torch.manual_seed(0)
        noisy = stack_of(make_probe(train, cases, Identity(), options), tmp_path)
        assert torch.equal(noisy[0], clean[0])
        noise.append(noisy[1:] - clean[1:])
    assert float(noise[0].std()) == pytest.approx(options.deviation, rel=0.05) and not torch.equal(*noise)
    changed = [by_autograd(clean, cases.queries.take([row]), 0.5) for row in range(6)]
    assert max(float((a - b).norm()) for a in changed for b in changed) <= 2 * 0.5  # the sensitivity


def test_a_selector_sees_the_sums_and_budgets_by_number(data, tmp_path):
    train, cases = data
    made = make_probe(train, cases, Identity(), ProbeOptions(fewest=4))
    stack = stack_of(made, tmp_path)
    targets = made.manifest.targets
    probe = ReceivedProbe(
        stack[0, :, :-1], stack[0, :, -1], stack[1:], torch.arange(4), tuple(one.queries for one in targets)
    )
    owner = Digits().samples().take(range(300, 700))
    features = embed(Identity(), owner.x)
    pool, queries = probe.pools(features, owner.y)
    for number, one in enumerate(targets):
        rows = (queries.y == number).nonzero().squeeze(1)
        torch.testing.assert_close(queries.gradients.take(rows).sum(), stack[1 + number])
        assert len(rows) / len(queries) == pytest.approx(one.queries / 34)
    raw = made.cases.queries
    direct = Pool(raw.y, gradients=head_gradients(probe.weight, probe.bias, embed(Identity(), raw.x), raw.y))
    wanted = GradientMatchingSelector().select(pool, direct, 20, 0)
    assert torch.equal(GradientMatchingSelector().select(pool, queries, 20, 0).indices, wanted.indices)


def test_clusters_of_a_selector_are_the_sums_that_were_sent(data, tmp_path):
    train, cases = data
    made = make_probe(train, cases, Identity(), ProbeOptions(2, 4))
    stack, targets = stack_of(made, tmp_path), made.manifest.targets
    labels = torch.tensor([int(one.label) for one in targets])
    probe = ReceivedProbe(stack[0, :, :-1], stack[0, :, -1], stack[1:], labels, tuple(one.queries for one in targets))
    owner = Digits().samples().take(range(300, 700))
    pool, queries = probe.pools(embed(Identity(), owner.x), owner.y)
    one_class = queries.take((queries.y == 2).nonzero().squeeze(1))
    found = GradientMatchingSelector(targets="clusters", n_clusters=4).select(pool, one_class, 8, 0)
    of_class = [index for index, one in enumerate(targets) if one.label == "2"]
    wanted, free = [], pool.y == 2
    for target in sorted(of_class, key=lambda index: -targets[index].queries):  # of 5 and of 4 cases
        single = queries.take((queries.sums == target).nonzero().squeeze(1))
        allowed = free.nonzero().squeeze(1)
        picked = allowed[GradientMatchingSelector().select(pool.take(allowed), single, 4, 0).indices]
        free[picked] = False
        wanted += picked.tolist()
    assert sorted(found.indices.tolist()) == sorted(wanted)


@pytest.fixture
def asked(place):
    ask(place, output=str(place / "probe"), **GIVEN)
    return place


def answered(place, **changes):
    given = {"query": str(place / "probe"), "output": str(place / "matched"), **MATCHING}
    answer(place, 1, **given | changes)
    return incoming(place / "matched", Answer)


def test_no_hard_case_is_in_the_bytes_and_the_ledger_knows_what_left(asked):
    assert {path.name for path in (asked / "probe").iterdir()} == {"manifest.json", "probe.npy"}
    query = incoming(asked / "probe", Query)
    assert not len(query.samples) and query.manifest.model is None
    book = SharingLedger(asked / "data/trainer/ledger.jsonl")
    entry = book.find("query", query.digest)
    assert entry.samples == {} and entry.notes["gradients"] == "probe" and len(entry.notes["queries"]) >= 3
    assert set(entry.notes["queries"]).isdisjoint(entry.notes["held_out"])
    val = LabelledSet(asked / "data/trainer/val").load()
    stack = torch.from_numpy(np.load(asked / "probe/probe.npy"))
    mine = embed(Identity(), val.take([val.keys.index(key) for key in entry.notes["queries"]]).x)
    rows = F.normalize(stack[1:, :, :-1].flatten(0, 1), dim=1)
    assert float((rows @ mine.T).abs().max()) < 0.999  # no row is the features of one case


def test_an_answer_to_a_probe_is_ranked(asked, capsys):
    received = answered(asked)
    choice = received.manifest.choice
    query = incoming(asked / "probe", Query)
    assert (choice.model, choice.checkpoint) == ("probe", query.manifest.probe.file.sha256)
    line = ["rank", "--query", str(asked / "probe"), "--answers", json.dumps({"one": str(asked / "matched")})]
    line += ["--ckpt_path", checkpoint(asked), "--data", str(asked / "data/trainer"), "--seeds", "2"]
    assert main([*line, "--output", str(asked / "ranking")]) in (0, 3)
    assert "sums of gradients, by the trainer" in (asked / "ranking/report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selector": FeatureSimilaritySelector()}, "the query holds only sums of their gradients"),
        ({"ckpt_path": "own.ckpt"}, "ckpt_path is own.ckpt, but the query holds the model"),
        ({"encoder": None}, "needs features, but there is no encoder; give --encoder Identity"),
    ],
)
def test_what_a_probe_cannot_serve_is_said(asked, changes, words):
    with pytest.raises(UserError, match=words):
        answered(asked, **changes)
    assert not (asked / "matched").exists()


def test_a_selector_that_needs_labels_only(asked):
    received = answered(asked, selector=RandomSelector(), encoder=None)
    assert received.manifest.choice.checkpoint is None and len(received.samples) == 12


def changed_probe(**changes):
    return lambda manifest: manifest["probe"].update(changes)


def other_target(manifest):
    manifest["probe"]["targets"][0]["queries"] += 1


CONTRADICTIONS = {
    "too few": (changed_probe(fewest=99), "sums fewer hard cases than it says"),
    "one": (changed_probe(fewest=1), "accepted"),
    "noise without clip": (changed_probe(epsilon=1.0, delta=1e-5, clip=None), "only a part of clip"),
    "noise without delta": (changed_probe(epsilon=1.0, clip=1.0), "only a part of clip"),
    "a class twice": (lambda m: m["probe"]["classes"].__setitem__(1, m["probe"]["classes"][0]), "twice|does not know"),
    "a class more": (lambda m: m["probe"]["classes"].append("x"), "of another type or shape"),
    "a sum more": (lambda m: m["probe"]["targets"].append(m["probe"]["targets"][0]), "other hard cases than it names"),
    "other numbers": (other_target, "other hard cases than it names"),
    "no encoder": (lambda m: m.update(encoder=None), "names no encoder"),
    "an index": (lambda m: m["contents"].update(index="0" * 64), "lists samples beside a probe"),
    "another file": (
        lambda m: m["probe"]["file"].update(file="x.npy"),
        r"which its manifest does not list|lacks x\.npy",
    ),
    "another hash": (lambda m: m["probe"]["file"].update(sha256="0" * 64), "has another SHA-256"),
    "a text for a number": (changed_probe(clip="1"), "is a text, but must be a number"),
    "a key more": (changed_probe(more=1), "has probe.more"),
}


@pytest.mark.parametrize(("change", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_probe_that_contradicts_itself_is_refused(asked, change, words):
    path = asked / "probe/manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_bytes(canonical(manifest))
    if words == "accepted":  # the sums are larger than it says
        load_probe(incoming(asked / "probe", Query))
        return
    with pytest.raises(UserError, match=words):
        load_probe(incoming(asked / "probe", Query))


def test_a_file_with_another_shape_or_no_numbers_is_refused(asked):
    path = asked / "probe/probe.npy"
    honest = np.load(path)
    for content in (honest[:-1], honest.astype(np.float64), np.full_like(honest, np.nan), honest[..., None]):
        np.save(path, content)
        manifest = json.loads((asked / "probe/manifest.json").read_bytes())
        found = Attachment.of("probe.npy", path.read_bytes())
        manifest["probe"]["file"] |= {"sha256": found.sha256, "size": found.size}
        (asked / "probe/manifest.json").write_bytes(canonical(manifest))
        with pytest.raises(UserError, match=r"of another type or shape|not finite"):
            load_probe(incoming(asked / "probe", Query))


def test_an_answer_with_gradients_of_another_model_is_refused(asked):
    answered(asked)
    path = asked / "matched/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["choice"]["checkpoint"] = "1" * 64
    path.write_bytes(canonical(manifest))
    with pytest.raises(UserError, match="gradients of another model than the query's"):
        accept(str(asked / "matched"), incoming(asked / "probe", Query), None, SharingLedger(asked / "x.jsonl"))


def test_noise_is_entered_in_the_ledger_and_added_up(place, capsys):
    for name in ("one", "two"):
        ask(place, output=str(place / name), **GIVEN | {"clip": 0.5, "epsilon": 1.5})
    assert spent_privacy(SharingLedger(place / "data/trainer/ledger.jsonl")) == (3.0, 2e-5)
    said = capsys.readouterr().out
    assert "have ε = 3 and δ = 2e-05" in said and "for ε = 1.5 and δ = 1e-05" in said
    ask(place, output=str(place / "dry"), dry_run=True, **GIVEN)
    assert (place / "dry.csv").read_text().startswith("class,hard cases,norm of their sum,noise in each number\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": None}, "gradients is probe, but there is no encoder"),
        ({"epsilon": 1.0}, "epsilon is 1.0, but noise can hide gradients of bounded norm only; give clip"),
        ({"epsilon": 1.0, "clip": 1.0, "clusters": 2}, "set clusters to 1"),
        ({"fewest": 1}, "fewest is 1, but must be 2 or more"),
        ({"fewest": 50}, "no class has as many hard cases"),
        ({"gradients": "owner", "fewest": 4, "clip": 1.0}, "gradients is owner, but clip is for probes"),
    ],
)
def test_bad_input_of_query(place, changes, words):
    with pytest.raises(UserError, match=words):
        ask(place, output=str(place / "bad"), **GIVEN | changes)
    assert not (place / "bad").exists()
