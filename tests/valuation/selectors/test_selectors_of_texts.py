"""Every selector on texts with a target per token: it chooses some, or says in a sentence why it cannot."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation import selectors
from lit_valuation.encoders import TokenCounts
from lit_valuation.exchange.answering import make_pool
from lit_valuation.nn import TokenConvNet
from lit_valuation.samples import NEXT_TOKEN, Samples, next_tokens
from lit_valuation.selectors import Selector
from lit_valuation.tagging import TaggingTask

KINDS = [
    kind
    for _, kind in inspect.getmembers(selectors, inspect.isclass)
    if issubclass(kind, Selector) and not inspect.isabstract(kind)
]
#: Which need one target per sample, or columns of a table.
REFUSE = {"BinningSelector": "columns of a table", "KNNShapleySelector": "one per token"}
ONE_PROCESS = SimpleNamespace(global_rank=0, world_size=1, device=torch.device("cpu"))


def texts(n, seed, target):
    x = torch.randint(20, (n, 6), generator=torch.Generator().manual_seed(seed))
    x[::2, 4:] = -1
    tags = (x % 3).where(x >= 0, -100)
    y, classes = (tags, ("a", "b", "c")) if target == "tags" else (next_tokens(x), (NEXT_TOKEN,))
    return Samples(x, y, classes, tuple(map(str, range(n))), target=target)


@pytest.mark.parametrize("target", ["tags", "text"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_chooses_or_refuses(kind, target):
    torch.manual_seed(0)
    outputs = 3 if target == "tags" else 20
    classes = ("a", "b", "c") if target == "tags" else tuple(map(str, range(20)))
    task = TaggingTask(TokenConvNet((6,), outputs, 20, width=4, hidden=(4,)), classes, (6,)).eval()
    selector, budget = kind(), 30 if kind.__name__ == "FullInformation" else 7

    def select():
        parts = [make_pool(texts(n, n, target), selector, TokenCounts(32), task, ONE_PROCESS) for n in (30, 8)]
        return selector.select(*parts, budget, seed=0)

    if kind.__name__ in REFUSE:
        with pytest.raises(UserError, match=REFUSE[kind.__name__]):
            select()
        return
    found = select()
    assert 1 <= len(found.indices) <= budget
    assert len(set(found.indices.tolist())) == len(found.indices) == len(found.weights)
    assert bool((found.weights >= 0).all())
