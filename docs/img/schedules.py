"""Draw the learning-rate schedules: ``python docs/img/schedules.py`` writes ``schedules.png`` beside this file."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from lit_moe.schedules import CosineInf, InvSqrtInf, StepSchedule, WarmupCosine


def draw(path: str) -> None:
    """Draw the schedules of a pre-training run and of the runs that continue it.

    Args:
        path: Image file to be written; its suffix gives the format.
    """
    peak, constant, least, steps = 3e-4, 1.65e-4, 3e-5, 1000

    def rates(kind: type[StepSchedule], **arguments: float) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
        schedule = kind(optimizer, total_steps=steps, **arguments)  # type: ignore[arg-type]
        return [schedule.rate(step, peak) for step in range(steps + 1)]

    infinite = {"const_lr": constant, "min_lr": least}
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    before, after = range(steps + 1), range(steps, 2 * steps + 1)
    axes.plot(before, rates(CosineInf, **infinite), "C0", label="CosineInf")
    axes.plot(before, rates(InvSqrtInf, **infinite), "C1", label="InvSqrtInf")
    axes.plot(before, rates(WarmupCosine, min_lr=least), "C2", label="WarmupCosine")
    axes.plot(after, rates(WarmupCosine, min_lr=least), "C2--", label="re-warmed from the decayed checkpoint")
    branch = rates(CosineInf, warmup=0, cooldown=0, constant=0.8, **infinite)
    axes.plot(range(810, 810 + steps + 1), branch, "C0--", label="branched from the constant phase")
    axes.set(xlabel="optimizer step", ylabel="learning rate")
    axes.legend(frameon=False, fontsize="small", loc="upper right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    draw(str(Path(__file__).with_suffix(".png")))
