"""A LightningModule of the user's own: built from any checkpoint, trained as its author trains it, refused by name."""

import sys
from pathlib import Path
from unittest import mock

import own_digits
import pytest
import torch
from digits_data import digits
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from own_digits import Digits, Mapped, OneArgument, Seeded, Smoothed
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_core.errors import UserError
from lit_valuation.contract import class_names, loss_of
from lit_valuation.functional.gradients import last_layer_gradients
from lit_valuation.last_layer import check_module, gather_gradients
from lit_valuation.samples import Samples
from lit_valuation.training.loading import SavedModel, load_task
from lit_valuation.training.retrain import TrainingRecipe, retrain
from lit_valuation.training.trial import tried

NAMES = tuple("0123456789")
X, Y = (tensor[:70] for tensor in digits())
TRAIN = Samples(X, Y, NAMES, tuple(f"{number:03d}" for number in range(70)))


def saved(module, path="own.ckpt", **hyperparameters):
    """Write a checkpoint as a Trainer without any part of ours writes it."""
    trainer = Trainer(max_epochs=0, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    if hyperparameters:
        content = torch.load(path, weights_only=True)
        torch.save(content | {"hyper_parameters": hyperparameters}, path)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, seeded):
    monkeypatch.chdir(tmp_path)


def test_a_module_has_the_weights_and_the_hyperparameters_of_its_checkpoint():
    trained = Digits(width=12, lr=0.3)
    saved(trained)
    task = load_task("own.ckpt", "own_digits.Digits")
    assert isinstance(task, Digits) and not task.training
    assert dict(task.hparams) == {"width": 12, "lr": 0.3, "n_classes": 10}
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(task.parameters(), trained.parameters(), strict=True))
    given = {"class_path": "own_digits.Digits", "init_args": {"lr": 0.7}}
    assert load_task("own.ckpt", given).hparams.lr == 0.7
    Path("own.yaml").write_text("class_path: own_digits.Digits\ninit_args: {lr: 0.9}\n")
    assert load_task("own.ckpt", "own.yaml").hparams.lr == 0.9


def test_all_hyperparameters_as_one_argument_and_a_function_that_returns_a_module():
    saved(OneArgument({"outputs": 7}))
    assert load_task("own.ckpt", "own_digits.OneArgument").net.out_features == 7
    saved(Smoothed())
    made = {"class_path": "own_digits.smoothed_or_not", "init_args": {"smooth": True}}
    assert isinstance(load_task("own.ckpt", made), Smoothed)


def test_other_seeds_give_other_weights():
    saved(Digits())
    recipe = TrainingRecipe.from_checkpoint("own.ckpt", "own_digits.Digits", batch_size=32)
    states = [
        nn.utils.parameters_to_vector(retrain(recipe_of(recipe), TRAIN, seed=seed).parameters()) for seed in (1, 1, 2)
    ]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_a_description_is_parsed_once_and_each_build_has_its_own_seed_and_values(monkeypatch):
    saved(Seeded())
    model = SavedModel.read("own.ckpt", "own_digits.Seeded")
    parse = mock.Mock(wraps=ArgumentParser.parse_object)
    monkeypatch.setattr(ArgumentParser, "parse_object", lambda *args, **kwargs: parse(*args, **kwargs))
    first = model.build(1)
    calls = parse.call_count
    first.widths.append(8)  # as a module may, which another one must not see
    others = [model.build(seed) for seed in (1, 2)]
    assert parse.call_count == calls > 0
    assert [one.seed for one in others] == [1, 2] and [one.widths for one in others] == [[6], [6]]
    first, again, other = (one.net[0].weight for one in (first, *others))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert model.build().seed == 5  # the checkpoint's


def recipe_of(recipe, **changes):
    return tried(TrainingRecipe(recipe.make, 5, recipe.batch_size, recipe.weights, **changes), TRAIN)


@pytest.mark.parametrize("kind", [Digits, Mapped])
def test_a_training_is_that_of_its_author_with_batches_and_epochs_as_they_were(kind):
    saved(kind(width=9))
    recipe = recipe_of(TrainingRecipe.from_checkpoint("own.ckpt", f"own_digits.{kind.__name__}", batch_size=32))
    assert recipe.pairs is (kind is Digits)
    task = retrain(recipe, TRAIN, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = kind(width=9)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(3)
    order = torch.cat([torch.randperm(70, generator=generator) for _ in range(3)])
    for step, rows in enumerate(order.split(32)[:5]):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (step // 3)  # 70 samples are three batches of 32
        optimizer.zero_grad()
        F.cross_entropy(plain(X[rows]), Y[rows]).backward()
        optimizer.step()
    for ours, theirs in zip(task.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_gradients_are_those_of_its_training_step():
    task = Smoothed()
    gathered = gather_gradients(task, [(X, Y)]).gradients
    task.loss(task(X[:1]), Y[:1]).backward()
    head = task.net[-1]
    torch.testing.assert_close(gathered.take([0]).sum(), torch.cat([head.weight.grad, head.bias.grad[:, None]], 1))


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.MSELoss()])
def test_losses_of_torch_are_known_up_to_a_common_factor(loss):
    module = nn.Module()
    module.loss = loss
    outputs, hidden, targets = torch.randn(5, 3, requires_grad=True), torch.randn(5, 4), torch.rand(5, 3).round()
    ours = last_layer_gradients(outputs, hidden, targets, loss_of(module)).delta
    theirs = [torch.autograd.grad(loss(outputs[i], targets[i]), outputs)[0][i] for i in range(5)]
    ratio = torch.stack(theirs) / ours
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "NoForward",
            "NoForward cannot be called with a batch of inputs, but its logits are needed; define its forward",
        ),
        ("Probabilities", "output of Probabilities is not that of its last nn.Linear"),
        ("NoLinear", "NoLinear has no nn.Linear"),
        ("Pair", "Pair returns a tuple, but its logits are needed; return a tensor"),
        ("Colours", r"Colours fails on a batch of inputs of the shape \(1, 1, 8, 8\) \(RuntimeError: mat1 and mat2"),
        ("Numbers", "`classes` of Numbers is .*, but must be a list of different names"),
        ("OtherLoss", "`loss` of OtherLoss is a Focal, but gradients are known"),
        ("Weighted", "`loss` of Weighted is a CrossEntropyLoss with weights, but"),
    ],
)
def test_what_a_module_lacks_is_named(kind, words):
    task = getattr(own_digits, kind)()
    with pytest.raises(UserError, match=words):
        check_module(task, TRAIN.renumbered(class_names(task, NAMES)))


def test_outputs_of_another_number_or_for_another_kind_of_target_are_refused():
    with pytest.raises(UserError, match=r"Digits has 10 outputs, but there are 11 classes \(0, .*, k\)"):
        check_module(Digits(), TRAIN.renumbered([*NAMES, "k"]))
    values = Samples(X, torch.rand(70, 10), NAMES, TRAIN.keys, target="values")
    with pytest.raises(UserError, match="Digits has the loss cross_entropy, but the data have target columns"):
        check_module(Digits(), values)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("NoStep", "NoStep has no training_step, but each ranking trains it; define it"),
        ("Fails", r"Fails cannot be trained: a step fails on a batch .*KeyError: 'image'.* and on a pair \(x, y\)"),
        ("Plateau", "Plateau cannot be trained: .*val_loss"),
    ],
)
def test_what_cannot_be_trained_is_refused(kind, words):
    saved(getattr(own_digits, kind)())
    recipe = TrainingRecipe.from_checkpoint("own.ckpt", f"own_digits.{kind}", batch_size=32)
    with pytest.raises(UserError, match=words):
        tried(recipe, TRAIN)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (None, "does not describe its model; give a checkpoint of lit-valuation fit, or name the class"),
        ("own_digits.Nothing", "--model is own_digits.Nothing, which cannot be found"),
        ("torch.nn.Linear", "--model is torch.nn.Linear, which is not a LightningModule"),
        ("own_digits", "is not a LightningModule"),
        ({"init_args": {}}, "--model lacks a class_path, but must have"),
        ({"class_path": "own_digits.NoForward", "width": 3}, "--model has width, but must have a class_path"),
        ("none.yaml", "none.yaml"),
        ({"class_path": "own_digits.NoForward", "init_args": {"widht": 3}}, "NoForward.* cannot be built .*widht"),
        ("own_digits.Digits", "another architecture"),
        ("own_digits.OneArgument", "OneArgument.* cannot be built .*lacks hparams"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, words):
    saved(own_digits.NoForward())
    with pytest.raises(UserError, match=words):
        load_task("own.ckpt", model)


def test_a_checkpoint_that_does_not_tell_its_batch_size_asks_for_it():
    saved(Digits())
    with pytest.raises(UserError, match="does not tell how many samples an optimizer step takes; give --batch_size"):
        TrainingRecipe.from_checkpoint("own.ckpt", "own_digits.Digits")


def test_a_checkpoint_names_no_code_of_others_beside_the_class_that_is_given(tmp_path, monkeypatch):
    (tmp_path / "hostile_module.py").write_text("open('ran', 'w')\nclass Payload: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    hostile = {"class_path": "hostile_module.Payload"}
    for hyperparameters in ({"_class_path": "hostile_module.Payload"}, {"width": hostile}, {"lr": [hostile]}):
        saved(Digits(), **hyperparameters)
        with pytest.raises(UserError, match=r"which was not written by you.*--trust hostile_module.Payload"):
            SavedModel.read("own.ckpt", "own_digits.Digits")
        assert not (tmp_path / "ran").exists()


def test_a_training_without_our_parts_gives_such_a_checkpoint(quiet):
    loader = DataLoader(TensorDataset(X, Y), batch_size=32)
    trainer = quiet(max_epochs=2)
    trainer.fit(Digits(), loader)
    trainer.save_checkpoint("own.ckpt")
    recipe = TrainingRecipe.from_checkpoint("own.ckpt", "own_digits.Digits", batch_size=32)
    assert recipe.steps == 6 and set(recipe.weights) == set(Digits().state_dict())


@pytest.mark.parametrize("path", ["lit_moe.MoELanguageModel", "lit_detect.DetectorTask"])
def test_a_model_of_something_else_is_not_built(path):
    saved(Digits(), _class_path=path)
    with pytest.raises(UserError, match=rf"which holds a {path}, which is not a model of samples; give"):
        load_task("own.ckpt")


def test_a_class_that_the_checkpoint_itself_tells_needs_no_other_word_once_it_is_trusted():
    saved(Digits(width=5), _class_path="own_digits.Digits", width=5)
    load_task("own.ckpt", "own_digits.Digits")  # which is typed, and so trusted from now on
    assert load_task("own.ckpt").hparams.width == 5


@pytest.mark.parametrize(("library", "kind"), [("torchvision.models", "ResNet"), ("timm", "Timm")])
def test_a_missing_library_of_the_example_is_named_with_its_extra(library, kind, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")
    monkeypatch.setitem(sys.modules, library, None)
    saved(Digits())
    with pytest.raises(UserError, match=r"cannot be built \(.* need.* the extra: pip install .*lit-shift\[vision\]"):
        load_task("own.ckpt", {"class_path": f"own_module.{kind}", "init_args": {"n_classes": 3}})
