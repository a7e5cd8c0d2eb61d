"""SIGTERM ends every command with 143 and SIGHUP with 129, and leaves the process as it was for the next one."""

import signal
import sys
import time
from pathlib import Path

import pytest
from small_cli import SmallData, SmallModel
from test_cli import FIT, LAST

from lit_core.cli import LitCLI, run

COMMANDS = [*LitCLI.subcommands(), "wait"]


#: The signal that arrives.
sent = signal.SIGTERM


class Terminates(SmallModel):
    """A signal arrives within a step."""

    def training_step(self, batch, batch_idx):
        signal.raise_signal(sent)
        return super().training_step(batch, batch_idx)

    def _terminate(self, batch, batch_idx):
        signal.raise_signal(sent)

    validation_step = test_step = predict_step = _terminate


def wait(seconds: int = 60):
    """Wait.

    Args:
        seconds: How long.
    """
    signal.raise_signal(sent)
    time.sleep(seconds)


def main(args):
    links = {"data.vocab_size": "model.init_args.shape.vocab"}
    return run("lit-small", lambda args: LitCLI("small", SmallModel, SmallData, links, args), {"wait": wait}, args)


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_its_code(command, signum, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["test_termination"], "sent", signum)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(one) for one in signals]
    args = [command]
    if command != "wait":
        own = FIT[1:] if command == "fit" else [*FIT[1:5], *FIT[7:9]]
        args += [*own, "--model", "test_termination.Terminates", "--run", "new", "--trainer.num_sanity_val_steps=0"]
        args = args if command == "fit" else args[:-1]
    assert main(args) == 128 + signum
    said = capsys.readouterr().err
    assert ("stopped and saved" if command == "fit" else "interrupted") in said and "Traceback" not in said
    assert Path(LAST.replace("first", "new")).exists() == Path("runs").exists() == (command == "fit")
    assert [signal.getsignal(one) for one in signals] == before
