"""Lightning's commands."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

import lit_detect.attacks
import lit_detect.detectors
import lit_detect.formats  # noqa: F401  # all three so that short names are known
from lit_core.cli import arguments
from lit_core.cli.lit_cli import LitCLI
from lit_core.files.text_files import with_compressions
from lit_core.screen import say
from lit_detect.callbacks import PredictionWriter
from lit_detect.data.module import TextDataModule  # noqa: F401
from lit_detect.data.user_texts import listed_texts
from lit_detect.default import ABOUT, NAME
from lit_detect.module import DetectorTask
from lit_detect.report.called import Called, called_lines, share

#: Where the data module takes the texts to predict, and the config of the default detector.
_PREDICT, _DEFAULT = "--data.init_args.predict", "configs/detect/predict/default.yaml"

#: Options that name a detector, and beginnings of such.
_NAMING = ("--ckpt_path", "--model", "--model.class_path", "--data", "--data.class_path")
_DETECTORS = ("--model.init_args.detector", "--model.detector")


class DetectorCLI(LitCLI):
    """The shared command line: tests say who is called machine wrongly, predictions are a table in the run folder."""

    best: ClassVar = {"auroc": max, "loss": min}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--input`` to ``predict``."""
        super().add_arguments_to_parser(parser)
        if "predict" in self.subcommands():
            parser.add_argument(
                "--input",
                type=list[str] | str | None,
                default=None,
                help="Texts to judge (data.init_args.predict). Where no checkpoint, model or detector is "
                "named, the default detector judges them.",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; ``--input`` names the texts, and the default detector judges where none is named."""
        super().parse_arguments(parser, with_default(list(args)))

    def answer(self) -> list[str]:
        """Return the lines of a test."""
        counts = getattr(self.model, "called_machine", {})
        rows = [Called(name, share(*of[:2]), share(*of[2:])) for name, of in counts.items()]
        return called_lines(rows) if rows else super().answer()

    def before_predict(self) -> None:
        """Add a `PredictionWriter` for ``predictions.csv``, or for ``predictions.jsonl`` if the input is JSONL."""
        if getattr(getattr(self.model, "detector", None), "name", "").startswith(NAME):
            rank_zero_only(say)(ABOUT)
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        if self.run_folder is not None and not any(isinstance(callback, PredictionWriter) for callback in callbacks):
            names = listed_texts(getattr(self.datamodule, "predict", None) or "")
            lines = all(str(name).endswith(with_compressions(".jsonl")) for name in names)
            kind: Literal["csv", "jsonl"] = "jsonl" if lines else "csv"
            callbacks.append(PredictionWriter(self.run_folder, kind))


def with_default(args: list[str]) -> list[str]:
    """Return the command line of ``predict`` with the texts of ``--input`` where the data module takes them.

    Where no checkpoint, model or detector is named, also in a config, that of the default detector is added.

    Args:
        args: The command line without the program's name.

    Raises:
        UserError: If a config file does not exist, or is not a mapping of keys to values.
    """
    if "predict" not in args or {"-h", "--help"}.intersection(args):
        return args
    taken: list[str] = []
    for arg in args:
        name, equals, value = arg.partition("=")
        taken.append(f"{_PREDICT}{equals}{value}" if name == "--input" else arg)
    names = {arg.partition("=")[0] for arg in taken}
    configs = arguments.option(arguments.locate_configs(args), "--config", "-c")
    are_named = not names.isdisjoint(_NAMING) or any(name.startswith(_DETECTORS) for name in names)
    if not are_named and not any(_names_detector(arguments.read_config(path)) for path in configs):
        place = taken.index("predict") + 1
        taken[place:place] = ["--config", _DEFAULT]
    return taken


def _names_detector(config: dict[Any, Any]) -> bool:
    """Tell whether a config says what judges, and not only, say, on which devices."""
    parts = [config.get("model"), config.get("data")]
    given = [part for part in parts if isinstance(part, dict)]
    is_class = any(isinstance(part, str) for part in parts) or any(part.get("class_path") for part in given)
    return (
        is_class or bool(config.get("ckpt_path")) or any("detector" in (part.get("init_args") or ()) for part in given)
    )


def commands(args: list[str]) -> LitCLI:
    """Run one of them.

    Args:
        args: The command line without the program's name.
    """
    return DetectorCLI("detect", DetectorTask, LightningDataModule, {}, args)
