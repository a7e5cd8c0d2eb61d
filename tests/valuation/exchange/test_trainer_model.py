"""A query with the trainer's model: owners train nothing, and learn what the page says, from the bytes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from crossing import answer, ask, checkpoint
from forging import canonical
from torch import nn

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.exchange.acceptance import accept
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Attachment, Query
from lit_valuation.exchange.trainer_model import load_trainer_model, trainer_model
from lit_valuation.last_layer import gather_gradients
from lit_valuation.selectors import GradientMatchingSelector, Pool, RandomSelector
from lit_valuation.training.loading import load_task

MATCHING = {"selector": GradientMatchingSelector(), "encoder": None, "limit": 60, "near": 0.0}
HOLDS = "but the query holds the model at which it asks for gradients"


@pytest.fixture
def asked(place):
    ask(place, output=str(place / "guided"), gradients="trainer")
    return place


def guided(place, **changes):
    answer(place, 1, **{"query": str(place / "guided"), "output": str(place / "matched"), **MATCHING} | changes)
    return incoming(place / "matched", Answer)


def test_an_owner_without_a_model_matches_at_the_trainers(asked):
    received = guided(asked)
    query, task = incoming(asked / "guided", Query), load_task(checkpoint(asked))
    pools = []
    owned = LabelledSet(asked / "data/owners/owner_1/train").load().of_classes(list(query.manifest.contents.classes))
    for samples in (owned, query.samples):
        samples = samples.renumbered(task.classes)
        found = gather_gradients(task, [(samples.inputs(), samples.y)], label_smoothing=task.label_smoothing)
        pools.append(Pool(samples.y, gradients=found.gradients))
    wanted = GradientMatchingSelector().select(*pools, 12, 0)
    assert torch.equal(owned.take(wanted.indices).x, received.samples.x)
    model = query.manifest.model
    assert received.manifest.choice.checkpoint == model.sha256 and "MLP" in received.manifest.choice.model
    book = SharingLedger(asked / "data/trainer/ledger.jsonl")
    entry = book.find("query", query.digest)
    assert entry.notes["gradients"] == "trainer" and entry.notes["model"] == model.sha256
    assert accept(str(asked / "matched"), query, None, book).digest == received.digest


def test_what_is_sent_is_the_network_and_nothing_else_of_the_checkpoint(asked):
    sent = torch.load(asked / "guided/model.ckpt", weights_only=True)
    own = torch.load(checkpoint(asked), weights_only=True)
    assert sent.keys() == {
        *("format", "version", "global_step", "hyper_parameters", "classes", "input_shape", "state_dict")
    }
    assert sent["global_step"] == 0 and sent["hyper_parameters"].keys() <= {"network", "label_smoothing", "_class_path"}
    assert all(torch.equal(sent["state_dict"][name], own["state_dict"][name]) for name in own["state_dict"])
    content = (asked / "guided/model.ckpt").read_bytes()
    for private in (str(asked), str(Path.home()), "ledger", "SGD", "optimizer", "runs/", "trainer"):
        assert private.encode() not in content, private
    assert content == trainer_model(checkpoint(asked))  # the same bytes each time, so one digest


def test_what_is_used_in_training_only_stays_at_home_with_its_weights(place):
    content = torch.load(checkpoint(place), weights_only=True)
    layer = {"class_path": "torch.nn.BatchNorm1d", "init_args": {"num_features": 8}}
    content["hyper_parameters"]["augmentation"] = layer
    content["state_dict"] |= {f"augmentation.{name}": value for name, value in nn.BatchNorm1d(8).state_dict().items()}
    torch.save(content, place / "augmented.ckpt")
    (place / "sent.ckpt").write_bytes(trainer_model(place / "augmented.ckpt"))
    assert load_task(place / "sent.ckpt").augmentation is None
    assert not [name for name in torch.load(place / "sent.ckpt")["state_dict"] if "augmentation" in name]


def test_the_summary_says_that_the_model_leaves(place, capsys):
    capsys.readouterr()
    ask(place, output=str(place / "dry"), gradients="trainer", dry_run=True)
    said = capsys.readouterr().out
    assert "hard cases with their labels" in said and "Also your model: the network MLP of" in said
    assert not (place / "dry").exists() and (place / "dry.png").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"ckpt_path": "own.ckpt"},
            f"ckpt_path is own.ckpt, {HOLDS}",
        ),
        (
            {"selector": RandomSelector(), "ckpt_path": "own.ckpt"},
            HOLDS,
        ),
    ],
)
def test_a_model_of_ones_own_is_not_taken_in_silence(asked, changes, words):
    with pytest.raises(UserError, match=words):
        guided(asked, **changes)


def spoiled(place, change):
    """Change the model in a query, and describe it as an honest trainer would."""
    path = place / "guided/model.ckpt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    manifest = json.loads((place / "guided/manifest.json").read_bytes())
    made = Attachment.of("model.ckpt", path.read_bytes())
    manifest["model"] |= {"sha256": made.sha256, "size": made.size}
    (place / "guided/manifest.json").write_bytes(canonical(manifest))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["hyper_parameters"].update(network={"class_path": "os.system", "init_args": {}}), "os.system"),
        (lambda c: c.update(input_shape=[1, 9, 9]), r"query's model is refused: .* has \(32, 81\)"),
        (lambda c: c.update(input_shape=[1, 4, 16]), r"but its model takes \(1, 4, 16\)"),
        (lambda c: c.update(classes=[f"x{name}" for name in c["classes"]]), "which its model does not know"),
        (lambda c: c["state_dict"].clear(), "network"),
        (lambda c: c["state_dict"]["network.head.weight"].fill_(float("nan")), "not finite"),
        (lambda c: c["hyper_parameters"]["network"]["init_args"].update(hidden=[10**9]), "hidden|numbers|more|large"),
        (lambda c: c.pop("hyper_parameters"), "model"),
    ],
)
def test_a_model_that_cannot_be_what_it_says_is_refused_in_a_sentence(asked, change, words):
    spoiled(asked, change)
    with pytest.raises(UserError, match=words):
        guided(asked)
    assert not (asked / "matched").exists()


def test_an_altered_model_changes_the_digest(asked):
    path = asked / "guided/model.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.ckpt has another SHA-256"):
        incoming(asked / "guided", Query)
    path.unlink()
    with pytest.raises(UserError, match=r"lacks model\.ckpt"):
        incoming(asked / "guided", Query)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoint": "1" * 64}, "gradients of another model than the query's"),
        ({"checkpoint": None}, "names a model without its hash"),
        ({"model": None}, "a hash without a model"),
    ],
)
def test_an_answer_that_contradicts_the_querys_model_is_refused(asked, change, words):
    guided(asked)
    path = asked / "matched/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["choice"] |= change
    path.write_bytes(canonical(manifest))
    with pytest.raises(UserError, match=words):
        accept(str(asked / "matched"), incoming(asked / "guided", Query), None, SharingLedger(asked / "ledger.jsonl"))


def test_a_model_that_owners_could_not_build_is_not_sent(place, monkeypatch, tmp_path):
    saved = torch.load(checkpoint(place), weights_only=True)
    cases = {
        "my_project.Net": ("class_path", "which owners do not have"),
        "/home/me/weights.pt": ("path", "would tell owners of your folders"),
    }
    for value, (key, words) in cases.items():
        network = dict(saved["hyper_parameters"]["network"])
        network |= {"class_path": value} if key == "class_path" else {"init_args": {"hidden": [32], "path": value}}
        monkeypatch.setattr(
            "lit_valuation.exchange.trainer_model.load_checkpoint_file",
            lambda path, network=network: saved | {"hyper_parameters": {"network": network}},
        )
        with pytest.raises(UserError, match=words):
            trainer_model("x.ckpt")


def test_by_two_commands(asked, monkeypatch):
    monkeypatch.chdir(asked)
    shutil.rmtree(asked / "runs/valuation/owner_1")
    line = ["select", "--query", "guided", "--data", "data/owners/owner_1", "--to", "trainer", "--limit", "60"]
    assert main([*line, "--selector", "GradientMatchingSelector", "--output", "typed"]) == 0
    assert load_trainer_model(incoming("guided", Query)).n_classes == 10
