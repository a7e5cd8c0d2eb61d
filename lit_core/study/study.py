"""The verb ``study``: a grid of runs over seeds, a table with intervals, and a verdict for each claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lit_core.errors import RunFailure, UserError, did_you_mean
from lit_core.files.outputs import is_overwriting, output_file
from lit_core.files.paths import atomic_write, locked_folder, make_folder, remove_torn_files
from lit_core.files.tables import markdown_text
from lit_core.record import add_to_record
from lit_core.screen import quoted, say
from lit_core.study.cells import ERROR, code_version, finished, rows_of, run_cell
from lit_core.study.claims import Claim
from lit_core.study.figures import Figure, draw
from lit_core.study.grid import Cell, Grid, Size, expand
from lit_core.study.report import Table, markdown, screen_lines, unknown_columns, write_page, write_results
from lit_core.study.rows import ResultRow


def study_verb(package: str) -> Callable[..., None]:
    """Return the verb ``study`` of a package.

    Args:
        package: Name of the package, such as ``lit_moe``; its commands are what cells can run.
    """

    def study(
        name: str,
        grids: dict[str, Grid],
        sizes: dict[str, Size],
        size: str = "smoke",
        claims: dict[str, Claim] | None = None,
        tables: dict[str, Table] | None = None,
        figures: dict[str, Figure] | None = None,
        title: str | None = None,
        output: str | None = None,
    ) -> None:
        """Run what is missing of a study and write its results, tables, figures and verdicts.

        Finished cells are kept, so the same command resumes a killed study. A cell whose config has changed runs again.

        Args:
            name: Name of the study; its folder is ``runs/PACKAGE/NAME-SIZE``.
            grids: The sub-grids by name, for example one per claim.
            sizes: Seeds and values by name of the size, such as ``smoke``, ``small`` and ``paper``.
            size: Name of the size to run.
            claims: Claims by name, with the criteria that decide them; None for none.
            tables: Tables by heading; None for none.
            figures: Figures by heading; None for none.
            title: Heading of the page; None takes the name.
            output: Markdown file to write as well, its pictures in a folder beside it; None writes to the study's
                folder only.

        Raises:
            UserError: If a value, a name or a class is wrong, or another process runs the study.
            RunFailure: If cells failed. The others are reported; if none has a result, no report is written.
        """
        page_file = None if output is None else output_file(output, continued=True)
        if Path(name).name != name or name in ("", ".", ".."):
            raise UserError(f"name is {name!r}, but it becomes a folder; use letters, digits, - and _.")
        if size not in sizes:
            raise UserError(f"size is {size}, but must be one of {', '.join(sizes)}.{did_you_mean(size, sizes)}")
        folder = Path("runs") / package.removeprefix("lit_") / f"{name}-{size}"
        if page_file is not None:
            output_file(page_file, continued=_is_page_of(page_file, _command(package, name, size)))
        cells = expand(grids, sizes, size, folder)
        with _locked(folder) as lock:
            _refuse_foreign_results(folder)
            failed = _run_missing(cells, folder, package, lock)
            rows = [row for cell in cells if (result := finished(cell, folder)) for row in rows_of(cell, result)]
            if not rows:
                first, reason = next(iter(failed.items()))
                raise RunFailure(
                    f"All {len(cells)} cells failed, so no report was written and an earlier one is left as it was; "
                    f"the first is {first} (see {folder / first / ERROR}): {reason}"
                )
            unknown = unknown_columns(rows, claims or {}, tables or {}, figures or {})
            for sentence in unknown:
                say(sentence)
            setting = sizes[size].setting
            notes = [*_notes(package, name, size, cells, rows, failed), *([setting] if setting else []), *unknown]
            page = _Page(title or f"Study {name}", notes, claims or {}, tables or {}, figures or {})
            page.write(rows, folder, page_file)
            add_to_record(folder)
        if failed:
            raise RunFailure(
                f"{len(failed)} of {len(cells)} cells failed, first {next(iter(failed))} (see "
                f"{folder / next(iter(failed)) / ERROR}); the same command runs them again."
            )

    return study


class _Page:
    """The page of a study, and where it is written."""

    def __init__(
        self,
        title: str,
        notes: Sequence[str],
        claims: Mapping[str, Claim],
        tables: Mapping[str, Table],
        figures: Mapping[str, Figure],
    ) -> None:
        self.title, self.notes, self.claims, self.tables, self.figures = title, notes, claims, tables, figures

    def write(self, rows: Sequence[ResultRow], folder: Path, output: Path | None) -> None:
        """Write results, figures and the page, here, for TensorBoard, and where it is asked for."""
        write_results(folder / "results.csv", rows)
        for page in (folder / "report.md", *([output] if output else [])):
            pictures = draw(self.figures, rows, page.parent / page.stem)
            links = {heading: path.relative_to(page.parent).as_posix() for heading, path in pictures.items()}
            text = markdown(self.title, self.notes, rows, self.claims, self.tables, links)
            atomic_write(page, text)
            if page.parent == folder:
                write_page(folder / "tensorboard", text, list(pictures.values()))
        say(*screen_lines(self.tables, rows), "", f"Report       {output or folder / 'report.md'}")
        say(f"Results      {folder / 'results.csv'}")
        say(f"Look at it   tensorboard --logdir {quoted(folder)}")


def _run_missing(cells: Sequence[Cell], folder: Path, package: str, lock: int) -> dict[str, str]:
    """Run the cells that are not finished and return what went wrong, by cell."""
    seconds: dict[str, list[float]] = {}
    missing = []
    for cell in cells:
        if (result := finished(cell, folder)) is None:
            missing.append(cell)
        else:
            seconds.setdefault(cell.grid, []).append(result["seconds"])
    left = _time_left(missing, seconds)
    say(f"{len(cells) - len(missing)} of {len(cells)} cells are finished{'; ' + left if left else ''}.")
    failed: dict[str, str] = {}
    for number, cell in enumerate(missing, start=1):
        result = run_cell(cell, folder, package, lock)
        if "error" in result:
            failed[cell.name] = result["error"]
            status = f"failed: {result['error']}"
        else:
            seconds.setdefault(cell.grid, []).append(result["seconds"])
            status = f"{result['seconds']:.1f} s"
        left = _time_left(missing[number:], seconds)
        say(f"[{number}/{len(missing)}] {cell.name}  {status}{'; ' + left if left else ''}")
    return failed


def _time_left(missing: Sequence[Cell], seconds: Mapping[str, Sequence[float]]) -> str:
    """Estimate the rest by the mean time of finished cells of the same grid, or of all where it has none."""
    every = [value for values in seconds.values() for value in values]
    if not missing or not every:
        return ""
    total = 0.0
    for cell in missing:
        known = seconds.get(cell.grid) or every
        total += sum(known) / len(known)
    return f"about {total:.0f} s left" if total < 90 else f"about {total / 60:.0f} min left"


def _command(package: str, name: str, size: str) -> str:
    """Return the command of a study, as its page shows it."""
    config = f"configs/{package.removeprefix('lit_')}/studies/{name}.yaml"
    return f"`{package.replace('_', '-')} study --config {quoted(config)} --size {quoted(size)}`"


def _is_page_of(page: Path, command: str) -> bool:
    """Tell whether a file is the page of a study, which the study writes anew."""
    return page.is_file() and f"\n{markdown_text(command)}: " in page.read_text(errors="replace")


def _notes(
    package: str, name: str, size: str, cells: Sequence[Cell], rows: Sequence[ResultRow], failed: Mapping[str, str]
) -> list[str]:
    seeds = sorted({row.labels["seed"] for row in rows})
    codes = sorted({row.record["code"] for row in rows})
    begin = f"{_command(package, name, size)}: {len(cells)} cells"
    notes = [f"{begin}, seeds {', '.join(map(str, seeds)) or 'none'}, code {', '.join(codes)}."]
    if any(code != code_version(package) for code in codes):
        notes.append("Some cells were run by other code than the present one; delete their folders to run them again.")
    notes += [f"Failed: {cell}: {why}" for cell, why in failed.items()]
    return notes


def _refuse_foreign_results(folder: Path) -> None:
    """Refuse a folder with results in which no study has run a cell, unless ``--overwrite`` was given."""
    there = [name for name in ("results.csv", "report.md") if (folder / name).exists()]
    if there and not (is_overwriting() or any(folder.glob("*/cell.json"))):
        raise UserError(
            f"{folder} has a {there[0]} that no study wrote; give the study another name, move the file, or add "
            "--overwrite."
        )


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Lock a study's folder itself, so that a killed process leaves no lock file."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        with locked_folder(folder, f"{folder} is a study that another process runs; wait until it ends.") as handle:
            for own in (folder, *folder.glob("*/")):
                remove_torn_files(own)
            yield handle
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()
