"""The command line that all packages share: Lightning's commands with one set of manners, and verbs of their own."""

from lit_core.cli.configs import configs_verb
from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.main import run

__all__ = ["LitCLI", "configs_verb", "run"]
