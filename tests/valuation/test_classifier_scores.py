import math

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, recall_score
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.metrics import ClassifierScores

CLASSES = ("ant", "bee", "cow")


def predictions(samples=50):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 3, generator=generator), torch.randint(3, (samples,), generator=generator)


def fill(scores, logits, y):
    scores.update(F.cross_entropy(logits, y, reduction="none"), logits.argmax(1), y)
    return scores


def test_they_equal_scikit_learns_over_uneven_batches():
    logits, y = predictions()
    scores = ClassifierScores(CLASSES, ["bee", "cow"])
    for start, stop in ((0, 7), (7, 8), (8, 50), (50, 50)):
        fill(scores, logits[start:stop], y[start:stop])
    values = {name: float(value) for name, value in scores.compute().items()}
    predicted, hard = logits.argmax(1), y > 0
    recalls = recall_score(y, predicted, average=None)
    assert values == pytest.approx(
        {
            "loss": log_loss(y, logits.softmax(1)),
            "accuracy": accuracy_score(y, predicted),
            "hard_accuracy": accuracy_score(y[hard], predicted[hard]),
            "recall/bee": recalls[1],
            "recall/cow": recalls[2],
        },
        rel=1e-6,
    )


def test_a_class_without_samples_has_no_recall():
    logits, y = predictions()
    values = fill(ClassifierScores(CLASSES, ["cow"]), logits[y < 2], y[y < 2]).compute()
    assert math.isnan(values["recall/cow"]) and 0 < values["accuracy"] < 1


def test_an_unknown_hard_class_is_refused():
    with pytest.raises(UserError, match=r'hard_classes` names \'bees\'.* Did you mean "bee"\?'):
        ClassifierScores(CLASSES, ["bees"])
