"""From a study's config to its cells: sub-grids of values, times seeds, at one of the sizes."""

from __future__ import annotations

import hashlib
import json
import pydoc
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

from lit_core.cli.arguments import option, read_config
from lit_core.cli.run_folder import find_config
from lit_core.errors import UserError, did_you_mean
from lit_core.moved_names import MOVED_MODULES, current_path
from lit_core.record import hidden_values, shown
from lit_core.seeds import checked_seed
from lit_core.study.identity import identity, plain
from lit_core.study.options import arguments_of, bind

#: A plain YAML value. The parser of the command line would build components in a value of type Any.
Plain = str | bool | int | float | list | dict | None
#: Columns that every row of the results has; a grid's values and a function's rows can't use these names.
RECORD_COLUMNS = ("grid", "cell", "config", "data", "code")


@dataclass(frozen=True)
class Grid:
    """A sub-grid: one thing that is done with each combination of some values, and with each seed.

    Args:
        function: Import path of a function that is called with the values and ``seed`` and returns rows: mappings whose
            floats are measured, and whose strings, booleans and whole numbers say of what. None if there are commands.
        commands: Command lines of the package without its name, one after the other in the cell's own run folder;
            ``$name`` stands for a value, ``$seed`` for the seed, ``$run`` for the cell's folder, ``$study`` for that of
            all cells. The last value of each logged metric is measured. None if there is a function.
        arguments: Values that all cells share, by name.
        vary: Lists of values by name, in place of shared ones; the cells are all their combinations.
    """

    function: str | None = None
    commands: list[str] | None = None
    arguments: dict[str, Plain] = field(default_factory=dict)
    vary: dict[str, list[Plain]] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Args:
        seeds: Seeds of the cells, 0 or more each; intervals are over them.
        values: Values that replace those of the same name in each grid that has the name, shared or varied.
        grids: Names of the grids that belong to this size; None for all.
        grid_seeds: Seeds of single grids, 0 or more each, in place of ``seeds``, by name of the grid.
        setting: What a reader of the page must know of the setting, shown below its title; None for nothing.
    """

    seeds: list[int]
    values: dict[str, Plain] = field(default_factory=dict)
    grids: list[str] | None = None
    grid_seeds: dict[str, list[int]] = field(default_factory=dict)
    setting: str | None = None

    def __post_init__(self) -> None:
        for name, seeds in self.grid_seeds.items():
            for seed in seeds:
                checked_seed(f"grid_seeds.{name}", seed)
        for seed in self.seeds:
            checked_seed("seeds", seed)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        name: Name of its folder.
        grid: Name of its grid.
        function: As in its grid.
        commands: As in its grid, with the values filled in; values of environment variables are references to these.
        values: All values, with the seed.
        labels: Those values that tell it from the other cells of its grid, with the seed; references as in `commands`.
        config: All that its result depends on, but for the code and the content of named data: ``function``,
            ``commands``, ``values``, and what is ``read`` by the commands, their configs and earlier cells.
    """

    name: str
    grid: str
    function: str | None
    commands: tuple[str, ...]
    values: Mapping[str, Any]
    labels: Mapping[str, Any]
    config: Mapping[str, Any]

    @cached_property
    def identity(self) -> str:
        """A short hash of the config, which is the same for all import paths of a class or function."""
        return identity(self.config)


def expand(grids: Mapping[str, Grid], sizes: Mapping[str, Size], size: str, folder: Path) -> list[Cell]:
    """Return the cells of a study, all grids of a seed before the next seed. All their values have been checked.

    Args:
        grids: The sub-grids by name.
        sizes: The sizes by name.
        size: Name of the size.
        folder: Folder of the cells.

    Raises:
        UserError: If a grid or the size does not make sense, or a value does not fit the argument that takes it.
    """
    replaced = sizes[size].values
    chosen = _chosen(grids, sizes[size])
    seeds = {name: sizes[size].grid_seeds.get(name, sizes[size].seeds) for name in chosen}
    cells: list[Cell] = []
    known: dict[tuple[Any, str, str], Any] = {}
    for seed in dict.fromkeys(seed for own_seeds in seeds.values() for seed in own_seeds):
        for name, grid in chosen.items():
            if seed not in seeds[name]:
                continue
            own = _cells(name, grid, seed, folder, cells)
            if grid.function is not None:
                _check(own, name, grid, {key: f"sizes.{size}.values.{key}" for key in replaced}, known)
            cells += own
    names = [cell.name for cell in cells]
    for cell in cells:
        if names.count(cell.name) > 1:
            raise UserError(f"grids.{cell.grid}: two cells are named {cell.name}; remove the value that stands twice.")
    return cells


def locate(path: str, where: str) -> Callable[..., Any]:
    """Return a function by its import path.

    Raises:
        UserError: If there is none.
    """
    try:
        function = pydoc.locate(current_path(path))
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{where} is {path}, which cannot be imported ({error.value}); fix or install it.") from error
    if not callable(function):
        module, _, name = path.rpartition(".")
        hint = did_you_mean(name, dir(pydoc.locate(MOVED_MODULES.get(module, module))) if module else ())
        raise UserError(f"{where} is {path}, but there is no function of that name; give its import path.{hint}")
    return function


def _check(
    cells: Sequence[Cell],
    name: str,
    grid: Grid,
    replaced: Mapping[str, str],
    known: dict[tuple[Any, str, str], Any],
) -> None:
    """Check the values of a grid's cells against the annotations of the function that takes them."""
    assert grid.function is not None
    function = locate(grid.function, f"grids.{name}.function")

    def where(key: str) -> str:
        return replaced.get(key) or f"grids.{name}.{'vary' if key in grid.vary else 'arguments'}.{key}"

    for cell in cells:
        bind(function, cell.values, where, known)


def _chosen(grids: Mapping[str, Grid], size: Size) -> dict[str, Grid]:
    """Return the grids of a size with its values in them."""
    names = list(grids) if size.grids is None else size.grids
    for where, seeds in {"seeds": size.seeds, **{f"grid_seeds.{k}": v for k, v in size.grid_seeds.items()}}.items():
        if not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"{where} is {seeds}, but must name at least one seed, and none twice; correct the list.")
    for name in size.grid_seeds:
        if name not in names:
            raise UserError(
                f"grid_seeds names {name}, which is not among the grids of the size.{did_you_mean(name, names)}"
            )
    for name in names:
        if name not in grids:
            raise UserError(f"A size names the grid {name}, which is not among grids.{did_you_mean(name, grids)}")
    known = {key for grid in grids.values() for key in (*grid.arguments, *grid.vary)}
    for key in size.values:
        if key not in known:
            hint = did_you_mean(key, known)
            raise UserError(f"A size sets {key}, which no grid has; put it into a grid's arguments or vary.{hint}")
    return {name: _resized(grids[name], size.values, name) for name in names}


def _resized(grid: Grid, values: Mapping[str, Any], name: str) -> Grid:
    vary = {key: values.get(key, value) for key, value in grid.vary.items()}
    arguments = {key: values.get(key, value) for key, value in grid.arguments.items() if key not in vary}
    where = f"grids.{name}"
    if (grid.function is None) == (grid.commands is None):
        has = "both function and" if grid.function else "neither function nor"
        raise UserError(f"{where} has {has} commands; give one of them.")
    if sum(command.split()[:1] == ["fit"] for command in grid.commands or ()) > 1:
        raise UserError(f"{where}.commands trains twice, but a cell has one run folder; give the second fit a grid.")
    for key in (*arguments, *vary):
        if key in (*RECORD_COLUMNS, "seed", "study", "run"):
            raise UserError(f"{where} gives {key}, which the study gives itself; choose another name or remove it.")
    for key, choices in vary.items():
        if not isinstance(choices, list) or not choices:
            raise UserError(f"{where}.vary.{key} is {choices}, but must be a list of one value or more; write [value].")
    if grid.function is not None:
        known = arguments_of(locate(grid.function, f"{where}.function")) or {}
        for key in ("seed", *arguments, *vary) if known else ():
            if key not in known:
                hint = did_you_mean(key, known)
                raise UserError(f"{where} gives {key}, which is not an argument of {grid.function}; remove it.{hint}")
        for key, argument in known.items():
            if argument.required and key not in ("seed", *arguments, *vary):
                raise UserError(f"{where} lacks {key}, which {grid.function} needs; add it to its arguments.")
    return Grid(grid.function, grid.commands, arguments, vary)


def _cells(name: str, grid: Grid, seed: int, folder: Path, earlier: Sequence[Cell]) -> list[Cell]:
    cells = []
    for combination in product(*grid.vary.values()):
        varied = dict(zip(grid.vary, combination, strict=True)) | {"seed": seed}
        values, labels = {**grid.arguments, **varied}, hidden_values(varied)
        cell = "-".join([name, *(_short(key, value) for key, value in labels.items())])
        folders = {"study": folder, "run": folder / cell}
        commands = tuple(_filled(command, {**values, **folders}, name) for command in grid.commands or ())
        read = [*_configs(commands), *(dict(c.config) for c in earlier if _reads(commands, folder, c))]
        config = {"function": grid.function, "commands": list(commands), "values": values, "read": read}
        commands = tuple(hidden_values(commands))
        cells.append(Cell(cell, name, grid.function, commands, values, labels, shown(plain(config))))
    return cells


def _filled(command: str, values: Mapping[str, Any], grid: str) -> str:
    try:
        return Template(command).substitute(values)
    except KeyError as error:
        hint = did_you_mean(str(error.args[0]), values)
        raise UserError(f"grids.{grid}.commands names ${error.args[0]}, which the grid does not set.{hint}") from error
    except ValueError as error:
        raise UserError(f"grids.{grid}.commands holds a lone $ in {command!r}; write $$ for the sign.") from error


def _configs(commands: Sequence[str]) -> list[Any]:
    """Return what is in the config files of command lines, since a cell's result changes with it."""
    named = [path for command in commands for path in option(_words(command), "--config", "-c")]
    return [read_config(find_config(path)) for path in named]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UserError(
            f"The command `{command}` cannot be split into words ({error}); close the quotation."
        ) from error


def _reads(commands: Sequence[str], folder: Path, cell: Cell) -> bool:
    """Tell whether command lines name a file of another cell."""
    return any(f"{folder / cell.name}/" in command for command in commands)


def _short(key: str, value: Any) -> str:
    """Return a part of a folder's name."""
    text = str(value)
    if not re.fullmatch(r"[\w.+]{1,40}", text):
        text = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{key}={text}"
