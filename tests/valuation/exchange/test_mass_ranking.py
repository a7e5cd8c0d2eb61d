"""How much an answer counts in the trainings of a ranking: a given mass, a chosen one, weights of the manifest."""

import csv
import dataclasses
import json

import pytest
import torch
from crossing import answer, checkpoint, files
from forging import canonical

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.commands.rank import rank
from lit_valuation.exchange.acceptance import TrainerData, load_trainer_data
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.judging import Judged
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.exchange.mass_choice import GRID, SEEDS, answer_weights, choose_masses, validation_score
from lit_valuation.exchange.trainings import TrainingResult, TrainingRuns
from lit_valuation.functional.mass import sample_weights
from lit_valuation.selectors import GradientMatchingSelector
from lit_valuation.training.loading import load_task
from lit_valuation.training.retrain import TrainingRecipe, retrain


def ranked(place, name, **changes):
    given = {"answers": {"one": str(place / "answer_1")}, "data": str(place / "data/trainer"), "seeds": 2}
    code = rank(str(place / "query"), ckpt_path=checkpoint(place), output=str(place / name), **given | changes)
    with (place / name / "ranking.csv").open() as file:
        return code, {row["owner"]: row for row in csv.DictReader(file)}


def trainings(folder):
    return {path.name: json.loads(path.read_bytes())["scores"] for path in folder.glob("trainings/*.json")}


def own_data(place):
    asked = incoming(place / "query", Query)
    book, task = SharingLedger(place / "data/trainer/ledger.jsonl"), load_task(checkpoint(place))
    return load_trainer_data(place / "data/trainer", book, asked, task)


def matched(place, name="matched"):
    """An answer whose manifest has weights that differ."""
    given = {"selector": GradientMatchingSelector(), "encoder": None, "limit": 60}
    answer(place, 1, output=str(place / name), ckpt_path=checkpoint(place, "owner_1"), **given)
    return incoming(place / name, Answer)


def test_a_ranking_trains_with_the_weights_that_mass_and_manifest_say(place):
    received = matched(place)
    assert len(set(received.manifest.weights)) > 3
    code, table = ranked(
        place, "heavy", answers={"one": str(place / "matched")}, mass=0.4, weights="manifest", near=0.0
    )
    assert code == 0 and table["one"]["mass"] == "0.400" and table["(nothing shared)"]["mass"] == "–"
    page = (place / "heavy/report.html").read_text()
    assert "a mass of 0.4" in page and "by the weights of its manifest" in page
    own = own_data(place)
    recipe = TrainingRecipe.from_checkpoint(checkpoint(place))
    samples = received.samples.renumbered(own.train.classes)
    weights = sample_weights(len(own.train), 0.4, torch.tensor(received.manifest.weights, dtype=torch.float64))
    tasks = [retrain(recipe, own.train, samples, seed, weights=weights) for seed in (0, 1)]
    right = [(task(own.held_out.inputs()).argmax(1) == own.held_out.y).double().mean() for task in tasks]
    assert table["one"]["held-out hard cases"] == f"{float(torch.stack(right).mean()):.3f}"


@pytest.mark.slow
def test_the_mass_is_chosen_without_the_held_out_cases(place, capsys):
    code, table = ranked(place, "chosen", mass="choose")
    said = capsys.readouterr().out
    assert code == 0 and "Choosing the mass of each answer among by number, 0.05, 0.1, 0.2, 0.4" in said
    stored = trainings(place / "chosen").values()
    choosing = [one for one in stored if "held_out" not in one]
    assert len(choosing) == (len(GRID) + 1) * SEEDS and all(one.keys() == {"queries", "other_val"} for one in choosing)
    assert len(stored) == len(choosing) + 4
    with (place / "chosen/mass.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (len(GRID) + 1) * SEEDS and {row["owner"] for row in rows} == {"one"}
    means = {}
    for row in rows:
        means.setdefault(row["mass"], []).append(float(row["validation score"]))
    best = max((mass for mass in means if float(mass)), key=lambda mass: sum(means[mass]))
    assert {row["mass"] for row in rows if row["chosen"] == "yes"} == {best}
    assert float(table["one"]["mass"]) == pytest.approx(float(best), abs=6e-4)
    assert (place / "chosen/mass.png").read_bytes()[:4] == b"\x89PNG"
    assert (place / "chosen/report.html").read_text().count("data:image/png;base64,") == 2

    before = files(place / "chosen/trainings")
    ranked(place, "chosen", mass="choose")
    assert files(place / "chosen/trainings") == before  # nothing was trained again
    with pytest.raises(UserError, match="holds the results of other"):
        ranked(place, "chosen", mass=0.3)


def test_other_held_out_cases_give_the_same_curve(place, tmp_path):
    own = own_data(place)
    received = incoming(place / "answer_1", Answer)
    within = torch.ones(len(received.samples), dtype=torch.float64)
    judged = {"one": Judged(received, received.samples.renumbered(own.train.classes), within, 0.0, None)}
    recipe = dataclasses.replace(TrainingRecipe.from_checkpoint(checkpoint(place)), steps=3)
    other = dataclasses.replace(own.held_out, x=torch.zeros_like(own.held_out.x))
    curves = []
    for name, data in (("a", own), ("b", dataclasses.replace(own, held_out=other))):
        runs = TrainingRuns(tmp_path / name, recipe, own.train, {"held_out": data.held_out}, "scratch", {})
        curves.append(choose_masses(runs, data, judged, "equal", range(1), True)[0]["one"])
    assert torch.equal(curves[0].scores, curves[1].scores)
    assert curves[0].scores.shape == (len(GRID), 1)


def test_the_estimate_is_that_of_the_whole_validation_set_on_average(place):
    """Over draws of which mistakes are sent, as `hard_cases` draws them."""
    own = own_data(place)
    mistakes = own.hard_cases
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(len(mistakes), generator=generator) < 0.3
    others = torch.rand(1, len(own.other_val), generator=generator) < 0.9
    found = []
    for _ in range(300):
        order = torch.randperm(len(mistakes), generator=generator)
        sent = torch.cat([order[mistakes.y[order] == c][:2] for c in own.queries.y.unique()])
        kept = torch.tensor(sorted({*range(len(mistakes))} - {*sent.tolist()}))
        data = TrainerData(own.train, mistakes.take(sent), mistakes.take(kept), own.other_val, None, {})
        result = TrainingResult({"queries": correct[sent].float(), "other_val": others[0].float()}, 0.0)
        found.append(float(validation_score([result], data)))
    whole = float(torch.cat([correct, others[0]]).double().mean())
    assert sum(found) / len(found) == pytest.approx(whole, abs=4e-3)


def test_a_mass_at_which_a_training_fails_is_left_out_and_of_an_owner_with_whom_all_fail_the_reason_is_told(place):
    own, received = own_data(place), incoming(place / "answer_1", Answer)
    samples = received.samples.renumbered(own.train.classes)
    endless = dataclasses.replace(samples, x=torch.full_like(samples.x.float(), 1e30))
    within = torch.ones(len(samples), dtype=torch.float64)
    judged = {
        name: Judged(received, of_owner, within, 0.0, None) for name, of_owner in (("good", samples), ("bad", endless))
    }
    recipe = dataclasses.replace(TrainingRecipe.from_checkpoint(checkpoint(place)), steps=8)
    runs = TrainingRuns(place / "t", recipe, own.train, {}, "scratch", {})
    curves, refused = choose_masses(runs, own, judged, "equal", [0], True)
    assert (
        curves.keys() == {"good"}
        and refused.keys() == {"bad"}
        and "a training with its samples fails" in refused["bad"]
    )


def test_without_a_mass_nothing_changes(place):
    received = incoming(place / "answer_1", Answer)
    judged = Judged(received, received.samples, torch.ones(len(received.samples)), 0.0, None)
    assert answer_weights(100, judged, None, "equal") is None
    weights = answer_weights(100, judged, None, "manifest")
    assert torch.equal(weights, torch.ones(100 + len(received.samples)))


def test_weights_of_0_are_refused_where_they_are_used(place, capsys):
    path = place / "answer_5/manifest.json"
    plain = json.loads(path.read_bytes())
    path.write_bytes(canonical(plain | {"weights": [0.0] * len(plain["weights"])}))
    answers = {"one": str(place / "answer_1"), "zero": str(place / "answer_5")}
    code, table = ranked(place, "manifest", answers=answers, weights="manifest")
    assert code == 3 and table["zero"]["rank"] == "refused"
    assert "gives each of its samples that count a weight of 0; rank with --weights equal" in capsys.readouterr().out


def test_a_mass_out_of_range_is_named(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    line = ["rank", "--query", "query", "--answers", '{"one": "answer_1"}', "--ckpt_path", checkpoint(place)]
    line += ["--data", "data/trainer", "--output", "bad"]
    for mass in ("0", "1", "1.5", "-0.2", "nan", "often"):
        assert main([*line, "--mass", mass]) == 2
        assert "mass" in capsys.readouterr().err
    assert not (place / "bad").exists()
