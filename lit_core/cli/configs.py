"""The verb ``configs``: an index of the packaged configs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lit_core.cli.run_folder import packaged_configs
from lit_core.errors import UserError, did_you_mean
from lit_core.screen import say


def configs_verb(package: str) -> Callable[..., None]:
    """Return the verb ``configs`` of a package.

    Args:
        package: Name of the package, such as ``lit_moe``.
    """

    def configs(words: str | None = None) -> None:
        """List the packaged configs with their purposes.

        Args:
            words: Words that must all occur in a config's path or description; the flag may be left out, as in
                ``lit-moe configs router bias``. None lists all configs.

        Raises:
            UserError: If no config has all words.
        """
        folder, index = packaged_configs(), config_index(package)
        chosen = {path: text for path, text in index.items() if _has(f"{path} {text}", words or "")}
        if not chosen:
            known = {word for path, text in index.items() for word in re.findall(r"[a-z]\w+", f"{path} {text}".lower())}
            hints = [did_you_mean(word, sorted(known)) for word in (words or "").split() if word.lower() not in known]
            raise UserError(
                f"words is {words}, but no config has all of these words in its path or description."
                f"{next(filter(None, hints), '')} Give other words, or none to list all configs."
            )
        width = max(map(len, chosen))
        for path, text in chosen.items():
            say(f"{path.ljust(width)}  {text}")
        say("", f"In           {folder}; the first lines of each config give the command that runs it")

    return configs


def config_index(package: str) -> dict[str, str]:
    """Return the first comment line of each packaged config of a package, by path.

    Args:
        package: Name of the package, such as ``lit_moe``.
    """
    folder = packaged_configs()
    own = (folder / name for name in (package.removeprefix("lit_"), "trainer"))  # trainer configs are for all packages
    paths = [path for part in own for path in sorted(part.rglob("*.yaml"))]
    return {f"configs/{path.relative_to(folder).as_posix()}": _description(path) for path in paths}


def _description(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def _has(text: str, words: str) -> bool:
    return all(word in text.lower() for word in words.lower().split())
