"""What the tests of lit_detect share; `tiny_models` beside it is found from any of their folders."""

import pytest
import torch
from short_search import shorten
from tiny_models import save_bert, save_gpt2, save_roberta


@pytest.fixture(autouse=True, scope="module")
def short_search(request):
    """Where a test is not about the search of logistic regressions, it does not wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "FULL_SEARCH", False):
            shorten(patch.setattr)
        yield


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A folder with a random BERT of 3 layers that classifies; 48 tokens."""
    return _saved(tmp_path_factory, "tiny-bert", save_bert)


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory):
    """A folder with a random RoBERTa of 2 layers that classifies; 64 tokens."""
    return _saved(tmp_path_factory, "tiny-roberta", save_roberta)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """A folder with a random GPT-2 of 2 layers; 64 tokens."""
    return _saved(tmp_path_factory, "tiny-gpt2", save_gpt2)


def _saved(tmp_path_factory, name, save):
    folder = tmp_path_factory.mktemp("models") / name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory, tiny_gpt2, tiny_bert):
    """Small parts by type, in place of those that would have to be fetched."""
    from stand_ins import StandIns

    return StandIns(tmp_path_factory.mktemp("stand-ins"), tiny_gpt2, tiny_bert)
