"""Each number that a config can name is checked where it is given: not nan, not infinite, and within its range.

The numbers are those of the constructors of our classes, of the verbs, of the Trainer and of torch's optimizers.
"""

import importlib
import inspect
import math
import re
from dataclasses import is_dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import lightning.pytorch as pl
import pytest
import torch
import yaml
from docstring_parser import parse
from jsonargparse import Namespace
from kinds import KINDS, PACKAGES, exports, modules_of
from verbs import own_verbs

import lit_moe.cli
from lit_core.cli.numbers import NEGATIVE, POSITIVE, check_numbers
from lit_core.corpora import Austen, Corpus
from lit_core.errors import UserError
from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks import Attack, Homoglyph
from lit_detect.formats import TextSource
from lit_detect.generation.generate import Decoding
from lit_valuation.selectors import FeatureSimilaritySelector, Selector
from lit_valuation.sources import LabelledSource

WRONG = (math.nan, math.inf, -1)
TINY = {"vocab_size": 257, "n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 16}
#: Arguments that a class needs before its numbers can be looked at; ``...`` stands for a part that is not built.
NEEDED = {
    "Size": {"seeds": [0], "grid_seeds": {"one": [0]}},
    "ClassifierTask": {"network": ..., "classes": ["a", "b"], "input_shape": [4]},
    "ContinualOptions": {
        **dict.fromkeys(("model", "schedule", "shift", "models", "shifts", "old", "corpora", "decoder", "recipe"), ...),
        **{"replay": 0.5, "vocab_size": 300, "pretrain_steps": 3, "steps": 3},
    },
    "ConvNet": {"input_shape": [3, 8, 8], "n_classes": 2},
    "Correlation": {"above": 0.1},
    "DecoderConfig": TINY,
    "DetectionOptions": {"lengths": [8]},
    "Division": {"owners": {}},
    "ExchangeOptions": {"budgets": [4]},
    "TableOptions": {"budgets": [4]},
    "HFConfig": {"model": "smollm2"},
    "HuggingFaceSamples": {"path": "x", "name": "x", "columns": ["a"]},
    "Level": {"above": 0.1},
    "LinearHead": {"input_shape": [4], "n_classes": 2},
    "LinearReplay": {"start": 0.0, "end": 1.0, "steps": 3},
    "MLP": {"input_shape": [4], "n_classes": 2},
    "MoELanguageModel": {"lr_factors": {"weight": 1.0}},
    "MoEConfig": {"n_experts": 4, "top_k": 2, "expert_width": 8},
    "MultiLabelTask": {"network": ..., "classes": ["a", "b"], "input_shape": [4]},
    "PlantedBackground": {"classes": ["a", "b"]},
    "RegressionTask": {
        **{"network": ..., "classes": ["a"], "input_shape": [4], "target_mean": [0.5], "target_scale": [0.5]},
    },
    "ReplayMixing": {"fraction": 0.5},
    "SampleText": {"prompts": [""]},
    "TaggingTask": {"network": ..., "classes": ["a", "b"], "input_shape": [4]},
    "TokenConvNet": {"input_shape": [4], "n_classes": 2, "vocabulary": 8},
    "TokenDataModule": {"root": "tokens", "sources": {"austen": 1.0}, "replay": {"stdlib": 1.0}},
}
#: Values of a study, which the options of its cells check; and an owner's, which the division checks by its name.
ELSEWHERE = {("Grid", "arguments"), ("Grid", "vary"), ("Size", "values"), ("Owner", "useful"), ("Owner", "samples")}
#: How the help of a number says that it may be 0.
ZERO = r"(?<![\d.])0(?!\.?\d)"
#: -1 has a meaning here.
MINUS_ONE = {
    **{("Devices", "devices"): "all", ("MaskedSynonym", "min_cosine"): "any word"},
    **{(name, "min_similarity"): "any window" for name in ("DFTFooler", "RandomPerturbation", "TextFooler")},
    **{("TextFooler", "threshold"): "a score", ("WordVectors", "min_cosine"): "any word"},
    ("RegressionTask", "target_mean"): "a value of the column",
    **{(name, "above"): "a limit" for name in ("PairedGain", "Correlation", "Level")},
    **{(name, "below"): "a limit" for name in ("Correlation", "Level")},
}


def numeric(hint):
    """The types of number in an annotation, at any depth."""
    own = {hint} if hint in (int, float) else set()
    return own | {kind for inner in get_args(hint) for kind in numeric(inner)}


def hints(function, **unknown):
    try:
        return get_type_hints(function, localns=unknown)
    except NameError as error:  # of a type that is imported for type checkers only
        return hints(function, **unknown, **{error.name: list})


def numbers(function):
    known = hints(function)
    return [name for name in inspect.signature(function).parameters if numeric(known.get(name))]


def classes_in(hint):
    inner = get_args(hint)
    return [found for part in inner for found in classes_in(part)] if inner else [hint] if inspect.isclass(hint) else []


def verbs():
    for package, found in own_verbs().items():
        for name, verb in found.items():
            yield f"{package}-{name}", verb


@cache
def nameable():
    """The classes that a config can name: of each kind, options of studies, and what arguments of all these hold."""
    modules = [module for package in PACKAGES for module in modules_of(package)]
    options = [module for module in modules if module.__name__.endswith("study.options")]
    queue = [part for kind in KINDS for part in kind.classes]
    queue += [
        part for module in options for part in vars(module).values() if is_dataclass(part) and inspect.isclass(part)
    ]
    queue += [part for _, verb in verbs() for hint in hints(verb).values() for part in classes_in(hint)]
    found, exported = {}, exports()
    while queue:
        part = queue.pop()
        if part.__module__.partition(".")[0] in PACKAGES and part not in found:
            found[part] = None
            queue += [other for other in exported if issubclass(other, part)]
            queue += [inner for hint in hints(part.__init__).values() for inner in classes_in(hint)]
    return [part for part in found if not inspect.isabstract(part)]


def wrong(part):
    """Yield each argument of a class with each number that it must refuse."""
    for name in numbers(part.__init__):
        for value in WRONG:
            key = (part.__name__, name)
            if key not in ELSEWHERE and not (value == -1 and key in MINUS_ONE):
                yield name, value


def needed_by(part):
    parameters = inspect.signature(part).parameters
    given = {"root": "owners" if part.__name__.startswith("Owners") else "texts", "folder": "texts"}
    needed = {
        key: given.get(key, ...)
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in (2, 4)
    }
    if "optimizer" in needed:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        rates = {key: rate for key, rate in (("const_lr", 0.5), ("min_lr", 0.1)) if key in needed}
        needed |= {"optimizer": optimizer, "total_steps": 10, **rates}
    if {"n_experts", "top_k"} <= needed.keys():
        needed |= {"n_experts": 4, "top_k": 2}
    return needed | NEEDED.get(part.__name__, {})


def make_folders():
    """Make the folders that data modules look for."""
    for folder in ("tokens/austen", "tokens/stdlib", "owners/trainer/train", "texts/train"):
        Path(folder).mkdir(parents=True)
    Path("texts/index.json").write_text("{}")


def with_number(usual, name, value):
    if isinstance(usual, dict):
        first, inner = next(iter(usual.items()))
        return {**usual, first: with_number(inner, name, value)}
    return [value] if isinstance(usual, list | tuple) or (name == "seeds" and usual is ...) else value


@pytest.mark.parametrize("part", [part for part in nameable() if any(wrong(part))], ids=lambda part: part.__name__)
def test_a_class_refuses_a_number_out_of_range_before_anything_else(part, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    make_folders()
    parameters, needed = inspect.signature(part).parameters, needed_by(part)
    for name, value in wrong(part):
        usual = needed.get(name, parameters[name].default)
        with pytest.raises(UserError, match=rf"\b{name}\b"):
            part(**{**needed, name: with_number(usual, name, value)})


def help_of(part):
    """Return what each argument of a class or a verb is for, also those of base classes."""
    found = {}
    for base in (*getattr(part, "__bases__", ()), part):
        found |= {one.arg_name: one.description for one in parse(base.__doc__ or "").params}
    return found


@pytest.mark.parametrize("part", [one for one in nameable() if numbers(one.__init__)], ids=lambda part: part.__name__)
def test_a_class_refuses_0_or_its_help_says_that_it_takes_it(part, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    make_folders()
    parameters, needed = inspect.signature(part).parameters, needed_by(part)
    for name in numbers(part.__init__):
        usual = needed.get(name, parameters[name].default)
        try:
            part(**{**needed, name: with_number(usual, name, 0)})
        except UserError as error:
            if re.search(rf"\b{name}\b", str(error)):
                continue
        except Exception:  # of another part that is not built; the numbers were checked before
            pass
        key = (part.__name__, name)
        assert key in ELSEWHERE | MINUS_ONE.keys() or re.search(ZERO, help_of(part)[name]), name


def test_the_walk_reaches_the_numbers_of_all_packages():
    walked = {part.__name__: [*wrong(part)] for part in nameable()}
    some = {"ReplayMixing", "PenaltyRouter", "GradientMatching", "Division", "Noise", "Whitespace", "DecoderConfig"}
    assert walked.keys() >= some and sum(map(len, walked.values())) > 600
    for name, argument in ELSEWHERE | MINUS_ONE.keys():
        part = next(part for part in nameable() if part.__name__ == name)
        assert argument in numbers(part.__init__)


# The numbers of verbs

#: What the parameters of verbs are given that name no files, by their type.
GIVEN = {
    **{Attack: Homoglyph(), Selector: FeatureSimilaritySelector(), list[Corpus]: [Austen()], LanguageModel: ...},
    **{list[Decoding]: [Decoding("pure")], list[int]: [4], int: 20, float: 0.5},
    **{str: "none", list[str]: ["none"], list[str] | str: "none", dict[str, str]: {"none": "none"}},
}


def with_numbers():
    for name, verb in verbs():
        if numbers(verb) and not name.endswith("-study"):  # whose numbers are those of grids and sizes
            yield pytest.param(name, verb, id=name)


def of_verbs():
    for case in with_numbers():
        for parameter in numbers(case.values[1]):
            yield pytest.param(case.values[1], parameter, id=f"{case.id}-{parameter}")


def calling(verb, name, value):
    """Return arguments of a verb, one of which is a number, whose files are missing."""
    parameters, known = inspect.signature(verb).parameters, hints(verb)
    needed = {key: GIVEN[known[key]] for key, one in parameters.items() if one.default is one.empty}
    if "train" in parameters:  # 0 of all is refused
        needed["train"] = 1
    if "output" in needed:
        usual = "jsonl" if verb.__module__.startswith("lit_detect") else "ckpt"
        needed["output"] = f"new.{'npz' if verb.__name__ == 'fingerprint' else usual}"
    return {**needed, name: with_number(needed.get(name, parameters[name].default), name, value)}


@pytest.mark.parametrize(("verb", "name"), list(of_verbs()))
def test_a_verb_names_a_number_before_files_that_are_missing(verb, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for value in WRONG:
        with pytest.raises(UserError, match=rf"^`?{name}\b.* is "):
            verb(**calling(verb, name, value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("verb", "name"), list(of_verbs()))
def test_a_verb_refuses_0_or_its_help_says_that_it_takes_it(verb, name):
    given = {key: one.default for key, one in inspect.signature(verb).parameters.items()} | calling(verb, name, 0)
    try:
        for check in verb.checks:
            check(**{key: given[key] for key in inspect.signature(check).parameters})
    except UserError as error:
        assert re.search(rf"\b{name}\b", str(error))
    else:
        assert re.search(ZERO, help_of(verb)[name])


def part(path, /, **arguments):
    return {"class_path": path, "init_args": arguments}


#: How parts are typed that cannot be built, since their files are missing, and others that a verb needs.
TYPED = {
    list[Corpus]: [part("lit_core.corpora.TextFolder", folder="none", name="mine")],
    list[TextSource]: [part("lit_detect.formats.PuJSONL", path="none", name="mine")],
    TextSource: part("lit_detect.formats.PuJSONL", path="none", name="mine"),
    LabelledSource: part("lit_valuation.sources.ImageFolder", folder="none", name="mine"),
    LanguageModel: part("lit_core.lm.HuggingFaceLM.from_pretrained", name="./none"),
    **{Attack: "Homoglyph", Selector: "RandomSelector", list[Decoding]: [{"name": "pure"}]},
}


@pytest.mark.parametrize(("name", "verb"), list(with_numbers()))
def test_a_command_names_a_number_before_it_builds_parts(name, verb, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    package, _, command = name.partition("-")
    number, kinds = numbers(verb)[-1], {key: {hint, *get_args(hint)} & {*TYPED} for key, hint in hints(verb).items()}
    typed = {**calling(verb, number, -1), **{key: TYPED[found.pop()] for key, found in kinds.items() if found}}
    if "detector" in kinds:
        typed["detector"] = "./none"
    Path("verb.yaml").write_text(yaml.safe_dump(typed))
    main = importlib.import_module(f"{package}.cli").main
    assert main([command, "--config", "verb.yaml"]) == 2
    assert f"{number} is -1, but must be" in capsys.readouterr().err
    assert main([command, "--config", "verb.yaml", f"--{number}", "30"]) == 2
    said = capsys.readouterr().err
    assert "none" in said or "needs more rights than yours" in said  # what is missing, or the right to a low port


# What Lightning and torch take


def of_trainer():
    return [name for name in numbers(pl.Trainer.__init__) if name not in ("plugins", "max_time")]


def of_libraries():
    """Yield each class of torch.optim and each callback of Lightning with its numbers and their defaults."""
    optimizers = [part for part in vars(torch.optim).values() if inspect.isclass(part)]
    schedules = [part for part in vars(torch.optim.lr_scheduler).values() if inspect.isclass(part)]
    callbacks = [getattr(pl.callbacks, name) for name in pl.callbacks.__all__]
    for part in {*optimizers, *schedules, *callbacks}:
        parameters = inspect.signature(part.__init__).parameters
        for name in numbers(part.__init__):
            yield f"{part.__module__}.{part.__name__}", name, parameters[name].default


def config_of(path, name, value):
    return Namespace(model=Namespace(class_path=path, init_args=Namespace({name: value})))


def test_the_trainer_takes_no_number_without_meaning():
    for name in of_trainer():
        default = inspect.signature(pl.Trainer.__init__).parameters[name].default
        check_numbers(Namespace(trainer=Namespace({name: default})))
        for value in (math.nan, math.inf, -math.inf, -2):
            with pytest.raises(UserError, match=rf"^`trainer\.{name}` is {value}, but must be"):
                check_numbers(Namespace(trainer=Namespace({name: value})))


#: What 0 means under the numbers of the Trainer that may be 0.
ZERO_OF_TRAINER = {
    **dict.fromkeys(("fast_dev_run", "overfit_batches", "reload_dataloaders_every_n_epochs"), "off"),
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches"), "none, beside a training"),
    **dict.fromkeys(("min_epochs", "min_steps"), "no least number"),
    **{"num_sanity_val_steps": "no check", "gradient_clip_val": "no clipping"},
}


def test_0_of_the_trainer_is_refused_unless_it_means_something():
    assert ZERO_OF_TRAINER.keys() <= {*of_trainer()}
    for name in of_trainer():
        for value in (0, 0.0):
            config = Namespace(trainer=Namespace({name: value}))
            if name in ZERO_OF_TRAINER:
                check_numbers(config, "fit")
            else:
                rule = r"(1 or more|above 0)(, or -1)?; change it"
                with pytest.raises(UserError, match=rf"^`trainer\.{name}` is {value}, but must be {rule}"):
                    check_numbers(config, "fit")


def test_a_command_must_have_something_to_do():
    for command, name in (("validate", "val"), ("test", "test"), ("predict", "predict")):
        with pytest.raises(UserError, match=f"`trainer.limit_{name}_batches` is 0, but must be 1 or more"):
            check_numbers(Namespace(trainer=Namespace({f"limit_{name}_batches": 0})), command)


@pytest.mark.parametrize("name", ["trainer.max_time", "trainer.val_check_interval", "model.init_args.duration"])
def test_a_time_of_0_is_refused(name):
    for value in ("00:00:00:00", {"hours": 0}, Namespace(hours=0, minutes=0), timedelta(0)):
        with pytest.raises(UserError, match=rf"^`{name}` is .*, but must be a time above 0"):
            check_numbers(with_time(name, value))
    for value in ("00:00:00:01", {"hours": 0, "minutes": 1}, timedelta(1)):
        check_numbers(with_time(name, value))


def with_time(name, value):
    config = Namespace(model=Namespace(class_path="lightning.pytorch.callbacks.Timer", init_args=Namespace()))
    config[name] = value
    return config


#: Arguments that torch's classes need beside the one that is 0.
OF_TORCH = {
    **{"T_0": 2, "T_max": 9, "base_lr": 0.1, "max_lr": 1.0, "gamma": 0.5, "step_size": 2, "milestones": [1]},
    **{"lr_lambda": lambda step: 1.0, "total_steps": 10},
}


def trains(kind, name, value):
    """Tell whether an optimizer or a schedule changes weights in three steps, and will go on to."""
    parameters = inspect.signature(kind).parameters
    needed = {key for key, one in parameters.items() if one.default is one.empty or key == "total_steps"}
    given = {key: OF_TORCH[key] for key in needed & OF_TORCH.keys()} | {name: value}
    weight = torch.nn.Parameter(torch.ones(3, 3))
    is_optimizer = issubclass(kind, torch.optim.Optimizer)
    optimizer = kind([weight], **given) if is_optimizer else torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    schedule = None if is_optimizer else kind(optimizer, **given)

    def gradient():
        weight.grad = weight.detach().clone()
        return weight.detach().square().sum() / 2

    for _ in range(3):
        optimizer.step(gradient)
        if schedule is not None:
            schedule.step(*([1.0] if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
    return bool(weight.isfinite().all() and (weight != 1).any()) and optimizer.param_groups[0]["lr"] > 0


def test_0_of_an_optimizer_or_a_schedule_is_refused_unless_it_trains():
    tried, no_numbers = set(), {"last_epoch", "lr_lambda", "milestones", "scale_fn"}
    for path, name, default in of_libraries():
        kind = getattr(torch.optim, path.rpartition(".")[2], None)
        kind = kind or getattr(torch.optim.lr_scheduler, path.rpartition(".")[2], None)
        bases = {torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.optim.SparseAdam}
        if kind is None or kind in bases or name in no_numbers:
            continue
        value = tuple(0.0 for _ in default) if isinstance(default, tuple) else 0.0 if isinstance(default, float) else 0
        if name not in POSITIVE:
            tried.add(name)
            assert trains(kind, name, value), (path, name)
    assert len(tried) > 20


def test_no_optimizer_schedule_or_callback_takes_nan_infinity_or_a_negative_number():
    walked = {}
    for path, name, default in of_libraries():
        walked[name] = path
        if default is not inspect.Parameter.empty:
            check_numbers(config_of(path, name, default))
        for value in (math.nan, math.inf, *((-2,) if NEGATIVE.get(name, 0) > -2 else ())):
            with pytest.raises(UserError, match=rf"`model.init_args.{name}` is {value}, but must be"):
                check_numbers(config_of(path, name, value))
    trainer = {f"trainer.{name}" for name in of_trainer()}
    assert len(walked) > 60 and NEGATIVE.keys() | POSITIVE <= walked.keys() | trainer


def test_another_projects_class_may_take_any_number():
    check_numbers(config_of("theirs.Model", "limit", math.inf))
    with pytest.raises(UserError, match=r"`model.init_args.optimizer.init_args.lr` is nan"):
        check_numbers(config_of("theirs.Model", "optimizer", config_of("torch.optim.SGD", "lr", math.nan).model))
    with pytest.raises(UserError, match="`fraction` is nan"):
        check_numbers(Namespace(fraction=math.nan))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("trainer.gradient_clip_val", value) for value in ("-1", ".nan", ".inf")),
        *(("trainer.accumulate_grad_batches", "0"), ("trainer.check_val_every_n_epoch", "-1")),
        *((f"trainer.{name}", "0") for name in ("max_steps", "max_epochs", "val_check_interval", "log_every_n_steps")),
        ("trainer.limit_train_batches", "0.0"),
        *(("model.init_args.optimizer.init_args.lr", value) for value in (".nan", ".inf", "-1")),
    ],
)
def test_a_run_with_such_a_number_does_not_begin(flag, value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = {
        "data": {"class_path": "lit_moe.TokenDataModule", "init_args": {"root": "tokens", "sources": {"austen": 1}}},
        "model": {
            "class_path": "lit_moe.MoELanguageModel",
            "init_args": {
                "decoder": {key: size for key, size in TINY.items() if key != "vocab_size"},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            },
        },
    }
    Path("run.yaml").write_text(yaml.safe_dump(config))
    assert lit_moe.cli.main(["fit", "--config", "run.yaml", f"--{flag}", value]) == 2
    assert f"`{flag}` is {value.strip('.')}, but must be" in capsys.readouterr().err.replace("-1.0", "-1")
    assert [path.name for path in Path().iterdir()] == ["run.yaml"]
