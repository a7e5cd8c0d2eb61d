"""`ProjectCLI`, a `LightningCLI` for projects of a user's own."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lit_core.cli import arguments, checkpoint_config
from lit_core.lightning.internals import CommandLine
from lit_core.origin import import_path


class ProjectCLI(CommandLine):
    """A `LightningCLI` in which ``--ckpt_path`` takes checkpoints of our modules, whoever wrote them.

    The arguments of the model that a checkpoint keeps are defaults, and what is typed wins. `LightningCLI` itself
    refuses them outside of its subclass mode, as its parser does not know the class that they name.
    """

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; the model's arguments in the checkpoint are inserted as defaults."""
        words = list(sys.argv[1:] if args is None else args) if args is None or isinstance(args, list) else []
        command = next((word for word in words if word in self.subcommands()), None)
        path = next(iter(arguments.option(words, "--ckpt_path")[-1:]), "")
        if command is None or not path.endswith(".ckpt"):
            super().parse_arguments(parser, args)
            return
        links = [action.target[0] for action in self.subcommand_parser(command)._actions if hasattr(action, "target")]
        model = checkpoint_config.model_of(path, words, links, str(import_path(self.model_class)))
        if model and not self.subclass_mode_model:
            model = model["init_args"]
        self.config = parser.parse_args(
            checkpoint_config.insert_config(words, command, {"model": model} if model else {})
        )

    def merge_checkpoint_hyperparameters(self) -> None:
        """Do nothing: they are among the defaults."""
