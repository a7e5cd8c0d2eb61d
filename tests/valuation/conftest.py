"""What the tests of lit_valuation share; `digits_data` beside it is found from any of their folders."""

import pytest
import torch
from lightning.pytorch import Trainer


@pytest.fixture
def quiet(tmp_path):
    """Makes silent CPU trainers without logger."""

    def make(*callbacks, **arguments):
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "max_epochs": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
            "callbacks": list(callbacks),
        }
        return Trainer(**{**settings, **arguments})

    return make


@pytest.fixture
def seeded():
    """Leaves torch's random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
