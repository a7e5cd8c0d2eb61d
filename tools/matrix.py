"""Installs the wheel in environments of its bounds, and works in an empty folder with each.

    python tools/matrix.py                  # all rows; fetches several gigabytes
    python tools/matrix.py none hf          # some
    python tools/matrix.py --output docs/results/matrix.json

A row is a Python version, a way to choose versions (the oldest that the bounds allow, the newest, or those of
constraints.txt) and extras. Each installs the wheel into an environment of its own and works in an empty folder with
every package (`tools/matrix_work.py`); where an extra is missing, the error must name it. `uv` chooses the versions and
finds the interpreters; a row without its interpreter or whose packages cannot be had is reported as not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXTRAS = ("detect", "documents", "faiss", "hf", "peft", "plot", "serve", "spacy", "valuation")
#: What each choice of versions adds to `uv pip install`; only what the requirements name is direct.
VERSIONS = {
    "oldest": ["--resolution", "lowest-direct", "--requirements", str(ROOT / "pyproject.toml")],
    "newest": [],
    "tested": ["--constraint", str(ROOT / "constraints.txt")],
}
#: Packages whose versions a row tells.
TOLD = (
    "torch",
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "numpy",
    "transformers",
    "scikit-learn",
    "pyarrow",
    "pypdf",
)
VERSIONS_OF = """
import importlib.metadata, json, sys
names = {one.metadata["Name"].lower(): one.version for one in importlib.metadata.distributions()}
print(json.dumps({name: names[name] for name in sys.argv[1:] if name in names}))
"""


@dataclass(frozen=True)
class Row:
    """An environment: a Python version, how versions are chosen, and extras."""

    python: str
    versions: str
    extras: tuple[str, ...] = ()


ROWS = {
    "oldest": Row("3.10", "oldest", EXTRAS),
    **{f"newest-{python}": Row(python, "newest", EXTRAS) for python in ("3.10", "3.11", "3.12", "3.13", "3.14")},
    "tested": Row("3.11", "tested", EXTRAS),
    "none": Row("3.11", "tested"),
    **{extra: Row("3.11", "tested", (extra,)) for extra in EXTRAS},
}


def main() -> None:
    """Build the wheel, run the rows and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="Rows to run; all by default.")
    parser.add_argument(
        "--output",
        type=Path,
        help="File for the results, as JSON, with a page beside it; rows in it that are not run stay.",
    )
    chosen = parser.parse_args()
    results = json.loads(chosen.output.read_text()) if chosen.output and chosen.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["uv", "build", "--wheel", "--quiet", "--out-dir", folder, str(ROOT)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        for name in chosen.rows or ROWS:
            results[name] = run(ROWS[name], wheel)
            print(f"{name:12} {results[name]['outcome']}", flush=True)
            if chosen.output:
                chosen.output.write_text(json.dumps(results, indent=2) + "\n")
                chosen.output.with_suffix(".md").write_text(page(results))
    sys.exit(any(result["outcome"] == "failed" for result in results.values()))


def run(row: Row, wheel: Path) -> dict[str, object]:
    """Install a row's environment and work with it.

    Args:
        row: The environment.
        wheel: The wheel to install.

    Returns:
        The outcome (passed, failed, or not run, with the reason), the versions, and the last lines of the output.
    """
    with tempfile.TemporaryDirectory() as folder:
        home, empty = Path(folder, "environment"), Path(folder, "empty")
        empty.mkdir()
        made = call("uv", "venv", "--quiet", "--python", row.python, str(home))
        if made.returncode:
            return {"outcome": f"not run: there is no Python {row.python}"}
        extras = f"[{','.join(row.extras)}]" if row.extras else ""
        python = str(home / "bin" / "python")
        target = f"lit-shift{extras} @ {wheel.as_uri()}"
        named = [f"--extra={extra}" for extra in row.extras] if row.versions == "oldest" else []
        installed = call("uv", "pip", "install", "-q", "--python", python, *VERSIONS[row.versions], *named, target)
        if installed.returncode:
            return {"outcome": "not run: it cannot be installed", "output": installed.stdout[-2000:]}
        versions = json.loads(call(python, "-c", VERSIONS_OF, *TOLD).stdout)
        script = ROOT / "tools" / "matrix_work.py"
        worked = call(python, str(script), json.dumps(row.extras), cwd=empty)
        outcome = "failed" if worked.returncode else "passed"
        if worked.returncode:
            print(worked.stdout[-6000:])
        return {"outcome": outcome, "python": row.python, "versions": versions, "output": worked.stdout[-2000:]}


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as a page."""
    lines = []
    for name, row in ROWS.items():
        result = results.get(name, {"outcome": "not run"})
        versions = result.get("versions", {})
        found = [versions.get(package, "") for package in TOLD]
        cells = [name, row.python, row.versions, ", ".join(row.extras), *found, result["outcome"]]
        lines.append(f"| {' | '.join(cells)} |")
    head = ["row", "Python", "versions", "extras", *TOLD, "outcome"]
    return f"""# Versions

Each row is an environment of its own with the wheel, in which each package works in an empty folder. `oldest` takes
the lowest versions that the bounds allow, `newest` the highest that there are, `tested` those of constraints.txt. Where
an extra is missing, the error must name it.

| {" | ".join(head)} |
|{" --- |" * len(head)}
{chr(10).join(lines)}

`python tools/matrix.py --output docs/results/matrix.json`; torch is the build for CPUs. Not run: GPUs, macOS.
"""


def call(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, its errors among its output."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd)


if __name__ == "__main__":
    main()
