"""A command line whose verb `study` runs functions on scikit-learn's digits."""

import os
import signal
import time
from pathlib import Path

from lit_core.cli import run
from lit_core.study import study_verb


def main(args=None):
    """Run the command line."""
    return run("lit-small", None, {"study": study_verb("lit_core")}, args)


def nearest_centroid(seed: int, samples: int, noise: float = 0.0, delay: float = 0.0):
    """Return test accuracies of two classifiers after training on some samples, a share of them mislabelled."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    time.sleep(delay)
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(x))
    train, test = order[:samples], order[-500:]
    labels = np.where(generator.random(samples) < noise, generator.integers(0, 10, samples), y[train])
    models = {"centroid": NearestCentroid(), "neighbour": KNeighborsClassifier(1)}
    return [
        {"model": name, "accuracy": float(model.fit(x[train], labels).score(x[test], y[test])), "data": "digits"}
        for name, model in models.items()
    ]


def failing(seed: int, samples: int):
    """Fail for one seed until a file appears, and kill the whole process for another."""
    if seed == 1 and not Path("repaired").exists():
        raise ValueError(f"no luck with {samples}")
    return [{"accuracy": 0.5 + seed}]


def deadly(seed: int, samples: int):
    """Kill the process the first time that seed 2 comes."""
    if seed == 2 and not Path("survived").exists():
        Path("survived").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return nearest_centroid(seed, samples)
