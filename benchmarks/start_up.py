"""What commands cost before they begin: CPU seconds of whole processes, from a bare Python to the first training step.

    python benchmarks/start_up.py --rounds 3 --warm-up 1 --output docs/results/start_up.json

Each process is started in each round, in an order drawn anew; user and system time are counted, which other work on
the machine lengthens less than the time on the clock. Peers that are not installed are said to be missing. The page is
written beside the JSON file.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import conditions
from side_by_side import Contender, arguments, finish, markdown, measure, new_result, ratios

from lit_core.files.paths import atomic_write

BARE, LIGHTNING, SCRIPT = "bare Python", "import lightning.pytorch", "a bare Lightning script, one step"
OURS_FIT = "lit-moe fit, one step"
TOP_HELP, FIT_HELP = "lit-moe --help", "lit-moe fit --help"
#: Most CPU seconds above a bare Python of what needs no work, and of the help of a verb.
AT_ONCE_AIM, HELP_AIM = 0.4, 1.0
#: Most times an import of Lightning, for the help of its commands, and a bare script, for a first step.
LIGHTNING_AIM, STEP_AIM = 1.1, 1.3
#: The same number of weights as our decoder has below.
BARE_SCRIPT = """
import lightning.pytorch as pl, torch
from torch import nn

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
        self.net = nn.Sequential(nn.Embedding(512, 64), nn.TransformerEncoder(layer, 2), nn.Linear(64, 512))

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())

data = torch.utils.data.DataLoader(torch.randint(512, (64, 33)), 4)
pl.Trainer(max_steps=1, accelerator="cpu", default_root_dir="bare").fit(Model(), data)
"""
FIT = [
    *("fit", "--data", "TokenDataModule", "--data.root", "./data", "--data.sources", "{austen: 1}"),
    *("--data.sequence_length", "32", "--data.global_batch_size", "4", "--data.micro_batch_size", "4"),
    *("--model", "MoELanguageModel", "--model.decoder.d_model", "64", "--model.decoder.n_layers", "2"),
    *("--model.decoder.n_heads", "4", "--model.decoder.d_ff", "256", "--model.decoder.feed_forward", "dense"),
    *("--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0"),
]


def commands() -> dict[str, list[str]]:
    """Return the command lines that are timed, by the names of their rows."""
    python, binaries = sys.executable, Path(sys.executable).parent

    def ours(line: str) -> list[str]:
        name, *words = line.split()
        return [python, "-m", name.replace("-", "_"), *words]

    lines = ["--version", "--help", "fti", "fit --config nowhere.yaml", "prepare --help", "study --help", "fit --help"]
    lines += ["configs router"]
    found = {
        BARE: [python, "-c", "pass"],
        "import torch": [python, "-c", "import torch"],
        LIGHTNING: [python, "-c", "import lightning.pytorch"],
        **{f"lit-moe {line}": ours(f"lit-moe {line}") for line in lines},
        "lit-valuation select --help": ours("lit-valuation select --help"),
        "lit-detect report --help": ours("lit-detect report --help"),
        SCRIPT: [python, "-c", BARE_SCRIPT],
        OURS_FIT: [python, "-m", "lit_moe", *FIT],
    }
    if importlib.util.find_spec("litgpt"):
        found["litgpt --help"] = [str(binaries / "litgpt"), "--help"]
    if importlib.util.find_spec("torchtitan") and importlib.util.find_spec("triton"):  # which it imports
        found["torchtitan --help"] = [python, "-m", "torchtitan.train", "--help"]
    return found


def cpu_seconds(name: str, command: list[str], folder: Path) -> float:
    """Return the CPU seconds of a process and of those that it waited for.

    Args:
        name: Name of the row; those of mistakes end with 2.
        command: The command line.
        folder: Its working directory.
    """
    shutil.rmtree(folder / "runs", ignore_errors=True)
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (2 if name.endswith(("fti", "nowhere.yaml")) else 0):
        raise SystemExit(f"{name} ended with {process.returncode}.")
    return used.ru_utime + used.ru_stime


def contenders(folder: Path) -> list[Contender]:
    """Return what is timed.

    Args:
        folder: Working directory of all, with the data of a training.
    """

    def timed(name: str, command: list[str]) -> Callable[[Any], float]:
        return lambda _: cpu_seconds(name, command, folder)

    return [Contender(name, timed(name, command), lambda: None) for name, command in commands().items()]


def table(result: dict[str, Any]) -> str:
    """Return the rows: CPU seconds, and times the import of Lightning.

    Args:
        result: What `main` wrote.
    """
    found = result["cases"][0]["ratios"]
    rows = [[name, f"{one['milliseconds'] / 1000:.2f}", f"{one['ratio']:.2f}"] for name, one in found.items()]
    missing = [[name, "not run", ""] for name in ("litgpt --help", "torchtitan --help") if name not in found]
    return markdown(["process", "CPU s", "× import lightning.pytorch"], [*rows, *missing])


def page(result: dict[str, Any]) -> str:
    """Return the page of the results.

    Args:
        result: What `main` wrote.
    """
    found = {name: one["milliseconds"] / 1000 for name, one in result["cases"][0]["ratios"].items()}
    bare, lightning = found[BARE], found[LIGHTNING]
    own = {name: seconds for name, seconds in found.items() if name.startswith("lit-")}
    helps = [seconds for name, seconds in own.items() if name.endswith(" --help") and name not in (TOP_HELP, FIT_HELP)]
    at_once = [own[f"lit-moe {name}"] - bare for name in ("--version", "--help", "fti", "fit --config nowhere.yaml")]
    return f"""# Start-up

{table(result)}

- `--version`, the top `--help`, a mistyped command and a config that is not there take at most {max(at_once):.2f} s
  more than a bare Python; the aim is {AT_ONCE_AIM}.
- The help of our own verbs takes at most {max(helps):.2f} s; the aim is {HELP_AIM}.
- The help of `fit` takes {own[FIT_HELP] / lightning:.2f} times the import of Lightning; the aim is
  {LIGHTNING_AIM}.
- The first step of a `fit` takes {found[OURS_FIT] / found[SCRIPT]:.2f} times what a bare script of
  Lightning's takes, with a transformer of the same widths; the aim is {STEP_AIM}. Ours has read its data and compared
  them with their hashes, recorded versions and inputs, and saved a checkpoint from which it resumes exactly.

{conditions(result)}
"""


def main() -> None:
    """Time the processes; write the numbers and the page beside them."""
    options = arguments(__doc__)
    result = new_result("start_up", options, ("torch", "lightning", "jsonargparse", "litgpt", "torchtitan"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = ["prepare", "--config", "configs/moe/prepare/austen.yaml", "--root", "./data"]
        prepare += ["--max_bytes", "200000", "--vocab_size", "512", "--tokenizer_bytes", "200000"]
        subprocess.run([sys.executable, "-m", "lit_moe", *prepare], cwd=folder, check=True)
        seconds = measure(contenders(folder), result["rounds"], result["warm_up"])
    case = {"seconds": seconds, "ratios": ratios(seconds, LIGHTNING), "cores_busy_with_others": None}
    result["cases"].append(case)
    print(table(result))
    finish(result, options.output)
    if options.output:
        atomic_write(Path(options.output).with_suffix(".md"), page(result))


if __name__ == "__main__":
    main()
