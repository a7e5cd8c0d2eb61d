import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.exchange.trainings import TrainingResult, dump_training, load_training


def test_a_result_of_a_former_release_is_read_and_scores_are_kept_exactly(tmp_path):
    path = tmp_path / "training.json"
    path.write_text('{"format": "litshift-training", "version": 1, "correct": {"test": "011"}, "seconds": 2.0}')
    former = load_training(path, {"test": 3}, "x")
    assert former.scores["test"].tolist() == [0.0, 1.0, 1.0]
    scores = -torch.rand(50, generator=torch.Generator().manual_seed(0)) * 1e3
    path.write_text(dump_training(TrainingResult({"test": scores}, 1.0)))
    assert torch.equal(load_training(path, {"test": 50}, "x").scores["test"], scores)
    path.write_text('{"format": "litshift-training", "version": 1, "correct": {"test": "021"}, "seconds": 2.0}')
    with pytest.raises(UserError, match="rows are not of 0 and 1"):
        load_training(path, {"test": 3}, "x")
