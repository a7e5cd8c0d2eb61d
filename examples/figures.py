"""Draw the pictures of the README from the quickstart's runs: ``make figures``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

RUNS = Path("runs/moe")
BEFORE = "quickstart-pretrain"
BRANCHES = {"quickstart-replay-30": "30 % replay", "quickstart-replay-0": "no replay"}


def main() -> None:
    """Draw both pictures into ``docs/img``."""
    draw_mri(Path("docs/img/mri.png"))
    draw_load(Path("docs/img/load.png"))


def read_metrics(run: str) -> dict[str, list[tuple[int, float]]]:
    """Read a run's metrics as (step, value) pairs by key; none if the run has not begun."""
    metrics: dict[str, list[tuple[int, float]]] = {}
    if not (RUNS / run / "metrics.csv").is_file():
        return metrics
    with (RUNS / run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key != "step":
                    metrics.setdefault(key, []).append((int(row["step"]), float(value)))
    return metrics


def draw_mri(path: Path, steps_before: int = 100) -> None:
    """Draw the maximum routing imbalance of training batches around the shift.

    Args:
        path: PNG file to be written.
        steps_before: Optimizer steps before the shift to show.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    before = read_metrics(BEFORE)
    shift = max(step for step, _ in before["train/router/mri/mean"]) + 1
    for run, label in BRANCHES.items():
        steps, values = zip(*read_metrics(run)["train/router/mri/mean"], strict=True)
        axes.plot(steps, values, label=f"Python, {label}")
    steps, values = zip(*before["train/router/mri/mean"], strict=True)
    axes.plot([step - shift for step in steps], values, color="grey", label="English")
    axes.set_xlim(left=-steps_before)
    axes.axhline(before["train/router/mri_floor"][0][1], color="black", linestyle=":", label="perfect balance, k/E")
    axes.axvline(0, color="lightgrey", zorder=0)
    axes.set(xlabel="optimizer steps since the shift", ylabel="MRI, mean over layers", ylim=(0, None))
    axes.legend(ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def draw_load(path: Path, run: str = "quickstart-replay-30") -> None:
    """Put the heat maps that the last test wrote to TensorBoard, old text and new text, below each other."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.image import imread
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(RUNS / run), size_guidance={"images": 0})
    events.Reload()
    sources = ("austen", "stdlib")
    images = [
        imread(io.BytesIO(events.Images(f"test/{source}/router/load")[-1].encoded_image_string)) for source in sources
    ]
    picture = np.concatenate(images)
    height, width = picture.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture)
    axes.axis("off")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
