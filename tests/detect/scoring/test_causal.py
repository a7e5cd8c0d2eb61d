"""Token scores against a loop in float64: any batch, any chunk, two models, half precision."""

import random

import pytest
import torch
from austen_pairs import passages
from naive_scores import naive_tokens

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.functional.scores import log_likelihood
from lit_detect.scoring import causal as scoring
from lit_detect.scoring.causal import batches_by_length, remembering, score_tokens, token_quantities

transformers = pytest.importorskip("transformers")

ALL = ("log_prob", "rank", "expected", "variance")
TEXTS = ["", "a", "Emma", "It was late.", "She <|endoftext|> left.", "😀" * 9, *(text[:120] for text in passages(6))]


def tiny_llama(seed, width=32):
    """A random Llama over bytes whose output is padded to a round number, as is often the case."""
    shape = dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    config = transformers.LlamaConfig(vocab_size=264, hidden_size=width, intermediate_size=48, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.15)
    return HuggingFaceLM(model.eval(), Tokenizer.bytes())


@pytest.fixture(scope="module")
def lm():
    return tiny_llama(0)


@pytest.fixture(scope="module")
def other():
    return tiny_llama(1, width=16)


def assert_scores(found, expected, tolerance=1e-4):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            assert torch.allclose(values.double(), torch.as_tensor(theirs[name]).double(), atol=tolerance), name


@pytest.mark.parametrize("with_reference", [False, True])
def test_scores_are_those_of_a_loop(lm, other, with_reference):
    reference = other if with_reference else None
    expected = [naive_tokens(lm, text, 100, reference) for text in TEXTS]
    assert_scores(score_tokens(lm, TEXTS, 100, ALL, reference), expected)


def test_gpt2_of_a_folder(tiny_gpt2):
    gpt2 = HuggingFaceLM.from_pretrained(tiny_gpt2)
    expected = [naive_tokens(gpt2, text, 60) for text in TEXTS]
    assert_scores(score_tokens(gpt2, TEXTS, 60, ALL), expected)


def test_batch_and_chunk_do_not_matter(lm, other, monkeypatch):
    whole = score_tokens(lm, TEXTS, 100, ALL, other, batch_tokens=100_000)
    assert_scores(score_tokens(lm, TEXTS, 100, ALL, other, batch_tokens=1), whole, 1e-5)
    monkeypatch.setattr(scoring, "_CHUNK_BYTES", 3 * 4 * 257)  # three positions
    assert_scores(score_tokens(lm, TEXTS, 100, ALL, other), whole, 1e-5)
    order = list(range(len(TEXTS)))
    random.Random(0).shuffle(order)
    mixed = score_tokens(lm, [TEXTS[i] for i in order], 100, ALL, other)
    assert_scores(mixed, [whole[i] for i in order], 1e-5)


def test_what_is_asked_for_is_computed(lm):
    whole = score_tokens(lm, TEXTS, 100, ALL)
    for name in ALL:
        assert_scores(score_tokens(lm, TEXTS, 100, (name,)), [{name: scores[name]} for scores in whole], 1e-6)
    first = score_tokens(lm, TEXTS, 7, ("log_prob",))
    assert_scores(first, [{"log_prob": scores["log_prob"][:7]} for scores in whole], 1e-5)
    assert score_tokens(lm, [], 100) == []


def test_the_mean_is_the_loss_of_transformers():
    """Without padding of the vocabulary, which transformers would count in."""
    config = transformers.GPT2Config(
        vocab_size=257, n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    lm = HuggingFaceLM(transformers.GPT2LMHeadModel(config).eval(), Tokenizer.bytes())
    for text in TEXTS[1:]:
        ids = torch.tensor([[lm.tokenizer.end_of_text, *lm.tokenizer.encode(text)[:100]]])
        with torch.no_grad():
            loss = lm.module(ids, labels=ids).loss
        found = log_likelihood(score_tokens(lm, [text], 100, ("log_prob",))[0]["log_prob"])
        assert float(found) == pytest.approx(-float(loss), abs=1e-5)


def test_half_precision_is_near_and_summed_in_float32(lm):
    half = tiny_llama(0)
    half.module.to(torch.bfloat16)
    found = score_tokens(half, TEXTS, 100, ALL)
    assert all(scores[name].dtype == torch.float32 for scores in found for name in ALL if name != "rank")
    for mine, theirs in zip(found, score_tokens(lm, TEXTS, 100, ALL), strict=True):
        assert float(log_likelihood(mine["log_prob"])) == pytest.approx(
            float(log_likelihood(theirs["log_prob"])), abs=0.03
        )


def test_autocast_and_training_mode_have_no_part_in_it(lm):
    plain = score_tokens(lm, TEXTS, 100, ALL)
    lm.module.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert_scores(score_tokens(lm, TEXTS, 100, ALL), plain, 0)
    assert lm.module.training
    lm.module.eval()


def test_a_nearly_certain_token_keeps_its_variance():
    """Large logits, where a difference of squares has no digits left."""
    logits = torch.tensor([[60.0, 40.0, 0.0]])
    found = token_quantities(logits, torch.tensor([1]), ALL)
    exact = token_quantities(logits.double(), torch.tensor([1]), ALL)
    assert found["variance"].item() == pytest.approx(exact["variance"].item(), rel=1e-4)


def test_what_is_remembered_is_not_computed_again(lm, monkeypatch):
    texts, memory = passages(3), {}
    plain = score_tokens(lm, texts, 60, ALL)
    with remembering(memory):
        assert score_tokens(lm, texts[:2], 60, ("rank",))[0].keys() == set(ALL)
        ran = []
        monkeypatch.setattr(type(lm), "hidden", lambda *args: ran.append(args))
        again = score_tokens(lm, [texts[1], texts[0], texts[1]], 60, ("log_prob",))
    assert not ran and len(memory) == 2
    for place, scores in zip((1, 0, 1), again, strict=True):
        for name in ALL:
            assert torch.allclose(scores[name].double(), plain[place][name].double(), atol=1e-5)


def test_batches_hold_like_lengths():
    lengths = [random.Random(seed).randint(1, 60) for seed in range(50)]
    batches = list(batches_by_length(lengths, batch_tokens=100))
    assert sorted(place for batch in batches for place in batch) == list(range(50))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 100 for batch in batches)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded <= 1.1 * sum(lengths)


def test_mistakes_are_named(lm):
    for arguments, sentence in (
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 129}, "takes 128 tokens"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ):
        with pytest.raises(UserError, match=sentence):
            score_tokens(lm, ["a"], **{"max_tokens": 100, **arguments})
    stranger = HuggingFaceLM(tiny_llama(1).module, Tokenizer.train_bpe(passages(3), 264))
    with pytest.raises(UserError, match="different tokenizers"):
        score_tokens(lm, ["a"], 100, ALL, stranger)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2(dtype):
    """A real model, whose logits' scale is what it is; in bfloat16 against a loop over its own logits."""
    from lit_core.lm.pretrained import smollm2

    lm, first = smollm2(dtype=dtype), smollm2(layers=20, dtype=dtype)
    texts = [text[:600] for text in passages(4)]
    found = score_tokens(lm, texts, 100, ALL, first)
    tolerance = 2e-3 if dtype == "float32" else 0.3  # products of other shapes round otherwise
    for mine, theirs in zip(found, (naive_tokens(lm, text, 100, first) for text in texts), strict=True):
        for name in ("log_prob", "expected"):
            assert torch.allclose(mine[name].double(), torch.tensor(theirs[name]).double(), atol=tolerance)
        mean = sum(theirs["log_prob"]) / len(theirs["log_prob"])
        assert float(log_likelihood(mine["log_prob"])) == pytest.approx(mean, abs=tolerance / 10)
        same = (mine["rank"] == torch.tensor(theirs["rank"])).double().mean()
        assert same > (0.99 if dtype == "float32" else 0.5)
