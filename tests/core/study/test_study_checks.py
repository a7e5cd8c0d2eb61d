"""Each mistyped key, class and value in a study's config is refused before anything runs."""

import copy
import inspect
import re
import time
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from lit_core import study
from lit_core.cli.arguments import read_config
from lit_core.errors import UserError
from lit_core.study.figures import Figure
from lit_core.study.grid import Grid, Size, expand, locate
from lit_core.study.options import arguments_of, read
from lit_core.study.parts import Part
from lit_core.study.report import Table, unknown_columns
from lit_core.study.rows import ResultRow

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*/studies/*.yaml"))
FOLDER = Path("runs/none")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))


def small_studies():
    """Yield each grid of each size of each study, with those of its arguments that no earlier one has."""
    seen = set()
    for path in CONFIGS:
        config = yaml.safe_load(path.read_text())
        for size_name, size in config["sizes"].items():
            for name in size.get("grids") or config["grids"]:
                grid, values = copy.deepcopy(config["grids"][name]), copy.deepcopy(size.get("values", {}))
                grid.setdefault("vary", {})
                known = {**grid["arguments"], **grid["vary"]}
                own = {key: value for key, value in values.items() if key in known}
                now = {key: (grid["function"], key, str(own.get(key, known[key]))) for key in known}
                new = [key for key, value in now.items() if value not in seen]
                seen.update(now.values())
                if new:
                    title = f"{path.parts[-3]}-{path.stem}-{size_name}-{name}"
                    yield pytest.param(name, grid, size_name, own, new, id=title)


def cells_of(name, grid, size, values):
    return expand({name: Grid(**grid)}, {size: Size([0], values)}, size, FOLDER)


def is_component(value):
    return isinstance(value, dict) and "class_path" in value


def mistakes(value, annotation):
    """Yield copies of a value with one mistake each, and what was mistyped."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    for inner in get_args(annotation) if type(None) in get_args(annotation) else ():
        if inner is not type(None):
            yield from mistakes(value, inner)
            return
    if isinstance(value, dict):
        free = get_origin(annotation) is dict and get_args(annotation)[1] is not Any  # keys are names of the user's
        child = get_args(annotation)[1] if free else None
        hints = get_type_hints(annotation) if is_dataclass(annotation) else {}
        for key, each in value.items():
            rest = {name: other for name, other in value.items() if name != key}
            if not free:
                yield {**rest, f"{key}x": each}, f"{key}x"
            if key == "class_path":
                yield {**rest, key: f"{each}x"}, f"{each}x"
            else:
                yield from (({**value, key: wrong}, what) for wrong, what in mistakes(each, hints.get(key, child)))
    elif isinstance(value, list):
        child = get_args(annotation)[0] if get_args(annotation) else None
        for index, each in enumerate(value):
            for wrong, what in mistakes(each, child):
                yield [*value[:index], wrong, *value[index + 1 :]], what
    elif isinstance(value, bool | int | float):
        yield "many", "many"


def all_mistakes(grid, values, keys):
    """Yield grid and values of a size with one mistake each, its path below the grid or the size, and the mistake.

    What varies has one value each: to refuse a mistake in one cell costs what it costs in each of dozens.
    """
    arguments, vary = arguments_of(locate(grid["function"], "function")), grid["vary"]
    first = {**grid, "vary": {key: value[:1] for key, value in vary.items()}}
    sizes = {key: value[:1] if key in vary else value for key, value in values.items()}
    for part in ("arguments", "vary"):
        for key, value in grid[part].items():
            sized = key in values
            value = values.get(key, value)
            if key not in keys or (part == "arguments" and key in grid["vary"]):
                continue
            annotation = arguments[key].annotation
            if part == "vary":
                each = [([one], list[annotation]) for one in value]
            else:
                each = [(value, annotation)]
            for wrong, what in (found for one in each for found in mistakes(*one)):
                changed = copy.deepcopy(first)
                if sized:
                    yield changed, {**sizes, key: wrong}, f"values.{key}", what
                else:
                    changed[part][key] = wrong
                    yield changed, sizes, f"{part}.{key}", what


@pytest.mark.parametrize(("name", "grid", "size", "values", "keys"), list(small_studies()))
def test_each_mistake_is_refused_where_it_stands(name, grid, size, values, keys):
    assert cells_of(name, grid, size, values)
    for changed, sized, where, what in all_mistakes(grid, values, keys):
        with pytest.raises(UserError) as error:
            cells_of(name, changed, size, sized)
        root = f"sizes.{size}." if where.startswith("values.") else f"grids.{name}."
        assert str(error.value).startswith(f"{root}{where}"), error.value
        named = what in str(error.value) or (what == "class_pathx" and "class_path" in str(error.value))
        assert named or " lacks " in str(error.value), (what, error.value)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("package", ["moe", "valuation", "detect"])
def test_many_mistakes_are_tried(package):
    tried = [
        (grid["function"], where, what)
        for _, grid, _, values, keys in (case.values for case in small_studies())
        for _, _, where, what in all_mistakes(grid, values, keys)
        if f"lit_{package}." in grid["function"]
    ]
    assert len(set(tried)) > 40


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem != "quickstart"], ids=lambda path: path.stem)
@pytest.mark.parametrize("wrong", ["key", "class"])
def test_a_command_refuses_a_mistake_with_one_sentence_and_makes_no_folder(path, wrong, capsys):
    config = yaml.safe_load(path.read_text())
    name, grid = next(iter(config["grids"].items()))
    kind = path.parts[-3]
    key, cls = {
        "moe": (("recipe", "learning_rate"), ("models", "switch_sinkhorn", "router")),
        "valuation": (("division", "owner_samples"), ("source",)),
        "detect": (("recipe", "learning_rate"), ("pairs",)),
    }[kind]
    node = grid["arguments"]
    for each in key[:-1] if wrong == "key" else cls:
        node = node[each]
    if wrong == "key":
        node["learning_rat" if kind != "valuation" else "owner_sample"] = node.pop(key[-1])
    else:
        node["class_path"] = node["class_path"][:-1]
    Path("mine.yaml").write_text(
        yaml.safe_dump({"name": "mine", "grids": {name: grid}, "sizes": {"smoke": {"seeds": [0]}}})
    )
    start = time.monotonic()
    assert import_module(f"lit_{kind}.cli").main(["study", "--config", "mine.yaml"]) == 2
    assert time.monotonic() - start < 60  # no model is built, nothing is fetched
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and f"grids.{name}.arguments." in said and "Did you mean" in said
    assert [path.name for path in Path().iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("key", ["class_path", "init_args"])
@pytest.mark.parametrize("value", [None, True, 3, [], {"a": 1}])
def test_a_component_of_the_wrong_shape_is_refused_in_our_own_words(key, value):
    if key == "init_args" and isinstance(value, dict):
        value = "text"
    config = yaml.safe_load(next(path for path in CONFIGS if path.stem == "mycroft").read_text())
    name, grid = next((name, grid) for name, grid in config["grids"].items() if "source" in grid["arguments"])
    grid["arguments"]["source"][key] = value
    with pytest.raises(UserError, match=rf"arguments\.source has (a {key} that is|{key} that are) \w+; write"):
        cells_of(name, {"vary": {}, **grid}, "smoke", {})


def test_a_function_whose_arguments_python_does_not_know_is_refused():
    with pytest.raises(UserError, match="whose arguments are not known"):
        expand({"g": Grid("lit_core.errors.UserError")}, {"s": Size([0])}, "s", FOLDER)


def test_a_command_that_is_not_words_is_refused():
    with pytest.raises(UserError, match='`fit "x` cannot be split into words'):
        expand({"g": Grid(commands=['fit "x'])}, {"s": Size([0])}, "s", FOLDER)


def test_a_key_that_is_set_twice_is_refused_and_an_anchor_is_not(tmp_path):
    path = tmp_path / "c.yaml"
    for text, key, lines in (
        ("a: 1\nb: 2\na: 3\n", "a", "1 and 3"),
        ("a:\n  - {x: {y: 1, y: 2}}\n", "y", "2 and 2"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"c\.yaml sets {key} twice, in lines {lines}; remove one"):
            read_config(str(path))
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n")
    content = read_config(str(path))
    assert content["b"] == {"x": 3, "y": 2} and content["c"] == [{"x": 1, "y": 2}] * 2
    for config in Path(__file__).parents[3].glob("configs/**/*.yaml"):
        assert read_config(str(config)) == yaml.safe_load(config.read_text())


def criteria():
    return [getattr(study, name) for name in study.__all__ if is_criterion(getattr(study, name))]


def is_criterion(one):
    return inspect.isclass(one) and issubclass(one, study.Criterion) and not inspect.isabstract(one)


@pytest.mark.parametrize("kind", criteria())
def test_each_criterion_names_its_columns(kind):
    """Whatever a criterion takes by an argument that names columns or labels stands in `columns`."""
    given, expected = {}, set()
    for name, parameter in inspect.signature(kind).parameters.items():
        annotation = str(parameter.annotation)
        if annotation == "list[Criterion]":
            given[name], value = [study.Level("inner", {"inner_label": 1}, above=0.0)], ["inner", "inner_label"]
        elif annotation.startswith("dict"):
            given[name], value = {f"{name}_label": 1}, [f"{name}_label"]
        elif annotation.startswith("list[dict"):
            given[name], value = [{f"{name}_label": 1}], [f"{name}_label"]
        elif annotation.startswith("Sequence[str]") or name in ("metric", "x", "y", "budget"):
            given[name], value = (f"{name}_column" if annotation == "str" else [f"{name}_column"]), [f"{name}_column"]
        elif name == "above":
            given[name], value = 0.0, []
        elif parameter.default is parameter.empty:
            given[name], value = {"str": "text", "float": 0.5, "int": 1}[annotation], []
        else:
            value = []
        expected.update(value)
    assert expected and set(kind(**given).columns) == expected


def test_what_no_result_has_is_told():
    rows = [ResultRow({"model": "a", "seed": 0}, {"loss": 1.0}, {})]
    within = study.Correlation("loss", "loss", above=0.0, within=["modle"])
    claims = {"c": study.Claim("A claim.", [within])}
    tables = {"t": Table(["model"], ["los"], {"seed": 0})}
    figures = {"f": Figure("loss", "model", ["loss"], {"sede": 0})}
    assert unknown_columns(rows, claims, tables, figures) == [
        'claims.c names modle, which no result has. Did you mean "model"?',
        'tables.t names los, which no result has. Did you mean "loss"?',
        'figures.f names sede, which no result has. Did you mean "seed"?',
    ]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"figures": {"F": {"x": "a", "by": "b", "metrics": ["c"], "wheer": {"grid": 1}}}}, 'wheer.* mean "where"'),
        ({"tables": {"T": {"by": ["a"], "metrics": ["b"], "wheer": {"by": 1}}}}, 'wheer.* mean "where"'),
        ({"grids": {"g": 3}}, "grids.g has 3, but must have the keys of a Grid: function, commands, arguments, vary"),
        ({"grids": {"g": {"function": "lit_valuation.simulate.simulat"}}}, 'simulat, .* mean "simulate"'),
    ],
)
def test_the_mistyped_key_is_named_and_not_what_is_below_it(part, words, capsys):
    config = {
        "name": "x",
        "grids": {"g": {"function": "lit_valuation.study.simulate"}},
        "sizes": {"smoke": {"seeds": [0]}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(config | part))
    assert import_module("lit_valuation.cli").main(["study", "--config", "mine.yaml"]) == 2
    assert re.search(words, capsys.readouterr().err)


def entries():
    """Yield each mapping of named things that a study takes, with an entry that is right."""
    level = {"class_path": "lit_core.study.Level", "init_args": {"metric": "a", "above": 0.0}}
    right = {
        "grids": {"function": "lit_valuation.study.simulate"},
        "sizes": {"seeds": [0]},
        "claims": {"text": "A claim.", "criteria": [level]},
        "tables": {"by": ["a"], "metrics": ["b"]},
        "figures": {"x": "a", "by": "b", "metrics": ["c"]},
    }
    for argument, parameter in inspect.signature(study.study_verb("lit_core")).parameters.items():
        if parameter.annotation.startswith("dict"):
            yield argument, right[argument]


@pytest.mark.parametrize(("argument", "right"), list(entries()))
def test_the_name_of_the_wrong_entry_is_told(argument, right, capsys):
    first = next(iter(right))
    wrong = [{**right, "unknown": 1}, {**right, first: {"no": 1}}, None, 3]
    wrong += [{key: value for key, value in right.items() if key != first}] if first not in ("function",) else []
    config = {"name": "x", **{name: {"smoke": entry} for name, entry in entries()}}
    for entry in wrong:
        config[argument] = {"before": right, "this one, 2.": entry, "smoke": right}
        Path("mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        assert import_module("lit_valuation.cli").main(["study", "--config", "mine.yaml"]) == 2
        assert f"lit-valuation: {argument}.this one, 2." in capsys.readouterr().err


LEVEL = {"class_path": "Level", "init_args": {"metric": "a", "above": 0.0}}
#: Arguments that the constructor of each criterion refuses.
REFUSED = {
    "PairedGain": ({"metric": "a", "of": {}, "over": []}, "over is empty"),
    "Correlation": ({"x": "a", "y": "b"}, "above is None and below is None"),
    "BudgetRatio": ({"budget": "a", "metric": "b", "of": {}, "over": {}, "none": {}, "full": {}, "share": 2}, "share"),
    "Level": ({"metric": "a", "above": 0.0, "below": 1.0}, "above is 0.0 and below is 1.0"),
    "AtLeast": ({"criteria": [LEVEL], "what": "a", "share": 2.0}, "share is 2.0"),
}


@pytest.mark.parametrize("kind", [kind.__name__ for kind in criteria()])
@pytest.mark.parametrize("inside", [False, True])
def test_a_criterion_that_refuses_a_value_is_named_by_its_claim(kind, inside, capsys):
    arguments, words = REFUSED[kind]
    claims = {"right": {"text": "A", "criteria": [LEVEL]}}
    criteria = [LEVEL, {"class_path": kind, "init_args": arguments}]
    if inside:
        criteria = [{"class_path": "AtLeast", "init_args": {"criteria": criteria, "what": "b"}}]
    claims["wrong"] = {"text": "B", "criteria": criteria}
    config = {"name": "x", **{name: {"smoke": entry} for name, entry in entries()}, "claims": claims}
    Path("mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert import_module("lit_valuation.cli").main(["study", "--config", "mine.yaml"]) == 2
    where = "claims.wrong.criteria.0.criteria.1" if inside else "claims.wrong.criteria.1"
    assert capsys.readouterr().err.startswith(f"lit-valuation: {where}: {words}")


def test_a_size_that_refuses_its_seeds_is_named(capsys):
    config = {"name": "x", **{name: {"smoke": entry} for name, entry in entries()}}
    config["sizes"]["huge"] = {"seeds": [-1]}
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    assert import_module("lit_valuation.cli").main(["study", "--config", "mine.yaml"]) == 2
    assert capsys.readouterr().err.startswith("lit-valuation: sizes.huge: seeds is -1, but must be 0 or more")


def test_a_component_that_refuses_a_value_is_named_by_its_place():
    part = read(Part[study.Criterion], {"class_path": "Level", "init_args": {"metric": "a"}}, "grids.g.arguments.c")
    with pytest.raises(UserError, match=r"^grids\.g\.arguments\.c: above is None and below is None"):
        part.build()


def numbers():
    """Yield each number of each options object of the shipped studies, with a grid that gives the object."""
    seen = set()
    for path in CONFIGS:
        config = yaml.safe_load(path.read_text())
        for name, grid in config["grids"].items():
            for argument, facts in arguments_of(locate(grid["function"], name)).items() if "function" in grid else ():
                kinds = {argument: facts.annotation}
                options = (facts.annotation, *get_args(facts.annotation))
                recipe = next((kind for kind in options if is_recipe(kind)), None)
                if recipe:
                    kinds = {f"{argument}.{key}": kind for key, kind in get_type_hints(recipe).items()}
                for key, kind in kinds.items():
                    if facts.in_options and key not in seen and kind in (int, int | None, list[int], list[int] | None):
                        seen.add(key)
                        yield pytest.param(grid, config["sizes"]["smoke"], key, kind, id=key)


def is_recipe(kind):
    return is_dataclass(kind) and kind.__name__.endswith("Recipe")


@pytest.mark.parametrize(("grid", "size", "key", "kind"), list(numbers()))
def test_a_number_that_is_too_small_is_refused(grid, size, key, kind):
    grid, (argument, _, inner) = copy.deepcopy(grid), key.partition(".")
    known = {**grid["arguments"], **grid.get("vary", {})}
    values = {name: value for name, value in size.get("values", {}).items() if name in known}
    wrong = [-1] if "list" in str(kind) else -1
    for place in (grid["arguments"], grid.get("vary", {}), values):
        place.pop(argument, None)
    grid["arguments"][argument] = {**(grid["arguments"].get(argument) or {}), inner: wrong} if inner else wrong
    with pytest.raises(UserError, match=rf"^grids\.g\.arguments\.{re.escape(key)} is -1, but must be 1 or more"):
        cells_of("g", grid, "smoke", values)
