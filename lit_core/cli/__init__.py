"""The command line of all packages: Lightning's commands and the packages' own verbs."""

from lit_core.cli.configs import configs_verb
from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.main import run
from lit_core.cli.project_cli import ProjectCLI
from lit_core.cli.show import show

__all__ = ["LitCLI", "ProjectCLI", "configs_verb", "run", "show"]
