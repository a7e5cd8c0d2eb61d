"""Masked scores against a loop that masks one token at a time."""

import pytest
import torch
from austen_pairs import passages

from lit_core.errors import UserError
from lit_detect.scoring.masked import score_masked
from lit_detect.scoring.masked_language_model import MaskedLM

transformers = pytest.importorskip("transformers")

ALL = ("log_prob", "rank", "expected", "variance")
TEXTS = ["", "late", "She [MASK] <mask> left [SEP] </s>.", "She saw Anna.", *(text[:160] for text in passages(3))]


def random_masked(kind, folder, seed=0):
    """A random model that fills masks, saved with the tokenizer of a folder and loaded by its real loader."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder, initializer_range=0.3, num_hidden_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    return model, tokenizer


@pytest.fixture(scope="module", params=["BertForMaskedLM", "RobertaForMaskedLM"])
def lm(request, tmp_path_factory):
    source = request.getfixturevalue("tiny_bert" if request.param.startswith("Bert") else "tiny_roberta")
    folder = tmp_path_factory.mktemp("masked") / request.param
    for part in random_masked(getattr(transformers, request.param), source):
        part.save_pretrained(folder)
    return MaskedLM.from_pretrained(str(folder))


@torch.no_grad()
def naive(lm, text, max_tokens, window):
    tokenizer = lm.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)[:max_tokens]
    assert not set(ids) & {tokenizer.mask_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id}
    row = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    found = {name: [] for name in ALL}
    for place in range(1, len(ids) + 1) if ids else [1]:
        masked = [*row[:place], tokenizer.mask_token_id, *row[place + 1 :]]
        first = max(0, place - window)
        logits = lm.module(torch.tensor([masked[first : place + window + 1]])).logits[0, place - first].double()
        log_probs = logits - logits.logsumexp(0)
        mean = (log_probs.exp() * log_probs).sum()
        found["log_prob"].append(float(log_probs[row[place]]))
        found["rank"].append(1 + sum(x > float(logits[row[place]]) for x in logits.tolist()))
        found["expected"].append(float(mean))
        found["variance"].append(float((log_probs.exp() * (log_probs - mean) ** 2).sum()))
    return found


@pytest.mark.parametrize(("window", "batch_tokens"), [(20, 4096), (3, 50), (3, 1)])
def test_scores_are_those_of_a_loop(lm, window, batch_tokens):
    found = score_masked(lm, TEXTS, 40, ALL, window, batch_tokens)
    for mine, text in zip(found, TEXTS, strict=True):
        theirs = naive(lm, text, 40, window)
        for name in ALL:
            assert torch.allclose(mine[name].double(), torch.tensor(theirs[name]).double(), atol=1e-4), name


def test_the_model_is_left_as_it_was(lm):
    ids = torch.tensor([lm.tokenizer.encode("She saw Anna.")])
    before = lm.module(ids).logits
    score_masked(lm, TEXTS, 40)
    assert torch.equal(lm.module(ids).logits, before) and before.shape[1] == ids.shape[1]
    assert score_masked(lm, [], 40) == []


def test_mistakes_are_named(lm):
    for arguments, sentence in (({"max_tokens": 0}, "max_tokens is 0"), ({"window": 40}, "window of 40 tokens")):
        with pytest.raises(UserError, match=sentence):
            score_masked(lm, ["a"], **arguments)
