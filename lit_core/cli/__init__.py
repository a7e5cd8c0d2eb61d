"""The command line of all packages: Lightning's commands and the packages' own verbs."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_core.cli.lit_cli import LitCLI
    from lit_core.cli.main import run
    from lit_core.cli.project_cli import ProjectCLI
    from lit_core.cli.verb import Verb

__all__ = ["LitCLI", "ProjectCLI", "Verb", "run"]
__getattr__, __dir__ = exports(__name__)
