import pytest
import torch
from torch import nn

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.bytes()


@pytest.fixture(scope="module")
def llama(tokenizer):
    return make_model(transformers.LlamaForCausalLM, transformers.LlamaConfig(**shape(tokenizer)))


@pytest.fixture(scope="module")
def gpt2(tokenizer):
    config = transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_embd=32,
        n_head=4,
        n_layer=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,  # tied and random, a model repeats its last token for ever
    )
    return make_model(transformers.GPT2LMHeadModel, config)


def shape(tokenizer):
    return dict(
        vocab_size=tokenizer.vocab_size + 7,  # padded, as vocabularies often are
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )


def make_model(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():
        # Far from uniform, so that greedy choices do not hang on rounding.
        nn.init.normal_(parameter, std=0.3)
    return model


PROMPTS = [[72, 101, 108, 108, 111], [1], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 11], [200, 201, 202]]


def reference(model, prompt, tokenizer, **options):
    """What transformers itself continues a lone prompt with."""
    model.lm_head.weight.data[tokenizer.vocab_size :] = 0
    suppress = list(range(tokenizer.vocab_size, model.config.vocab_size)) or None
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=20,
        eos_token_id=tokenizer.end_of_text,
        pad_token_id=tokenizer.end_of_text,
        suppress_tokens=suppress,
        **options,
    )[0, len(prompt) :].tolist()
    return out[: out.index(tokenizer.end_of_text)] if tokenizer.end_of_text in out else out


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_greedy_equals_transformers_alone_and_in_a_batch(request, tokenizer, name, penalty):
    model = request.getfixturevalue(name)
    lm = HuggingFaceLM(model, tokenizer)
    expected = [reference(model, prompt, tokenizer, repetition_penalty=penalty) for prompt in PROMPTS]
    options = dict(max_new_tokens=20, temperature=0, repetition_penalty=penalty)
    assert lm.generate_ids(PROMPTS, **options) == expected
    assert [lm.generate_ids([prompt], **options)[0] for prompt in PROMPTS] == expected
    assert lm.generate_ids(PROMPTS, batch_size=3, **options) == expected
    assert any(len(set(row)) > 3 for row in expected)


def test_stops_at_the_end_of_text(llama, tokenizer):
    lm = HuggingFaceLM(llama, tokenizer)
    free = lm.generate_ids(PROMPTS, max_new_tokens=12, temperature=0, stop_at_end=False)
    assert all(len(row) == 12 for row in free)
    stopping = Tokenizer.bytes()
    stopping.end_of_text = free[0][3]
    lm.tokenizer = stopping
    stopped = lm.generate_ids(PROMPTS, max_new_tokens=12, temperature=0)
    cut = [row[: row.index(stopping.end_of_text)] if stopping.end_of_text in row else row for row in free]
    assert stopped == cut and len(stopped[0]) <= 3 < max(map(len, stopped))


def test_samples_depend_on_seed_and_place_alone(llama, tokenizer):
    lm = HuggingFaceLM(llama, tokenizer)
    options = dict(max_new_tokens=15, temperature=1.0, top_k=50)
    together = lm.generate_ids([PROMPTS[0]] * 6, seed=3, **options)
    assert len({tuple(row) for row in together}) == 6
    assert lm.generate_ids([PROMPTS[0]] * 6, seed=3, batch_size=4, **options) == together
    parts = [lm.generate_ids([PROMPTS[0]], seed=3, first_row=row, **options)[0] for row in range(6)]
    assert parts == together
    assert lm.generate_ids([PROMPTS[0]] * 6, seed=4, **options) != together


def test_leaves_mode_and_random_numbers_alone(llama, tokenizer):
    llama.train()
    llama.model.layers[0].eval()
    state = torch.get_rng_state()
    lm = HuggingFaceLM(llama, tokenizer)
    lm.generate_ids(PROMPTS, max_new_tokens=2)
    assert llama.training and not llama.model.layers[0].training
    assert torch.equal(state, torch.get_rng_state())
    llama.eval()


def test_text_goes_in_and_out(llama, tokenizer):
    lm = HuggingFaceLM(llama, tokenizer)
    texts = lm.generate(["Hello", ""], max_new_tokens=5, temperature=0)
    ids = lm.generate_ids([list(b"Hello"), [tokenizer.end_of_text]], max_new_tokens=5, temperature=0)
    assert texts == [tokenizer.decode(row) for row in ids]


def test_logits_with_a_cache_equal_those_without(llama, tokenizer):
    lm = HuggingFaceLM(llama, tokenizer)
    ids = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        full, nothing = lm.logits(ids)
        first, cache = lm.logits(ids[:, :6], lm.new_cache())
        second, _ = lm.logits(ids[:, 6:], cache)
        last, _ = lm.logits(ids, last_only=True)
    assert nothing is None
    torch.testing.assert_close(torch.cat((first, second), 1), full, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last, full[:, -1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(full, llama(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.5),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("repetition_penalty", 0.0),
        ("seed", -1),
        ("batch_size", 0),
    ],
)
def test_refuses_options_out_of_range(llama, tokenizer, option, value):
    with pytest.raises(UserError, match=f"^{option} is {value}, but must be"):
        HuggingFaceLM(llama, tokenizer).generate(["a"], **{option: value})


def test_refuses_prompts_that_do_not_fit(llama, tokenizer):
    lm = HuggingFaceLM(llama, tokenizer)
    with pytest.raises(UserError, match="Prompt 1 has 60 tokens and max_new_tokens is 5, but the model takes 64"):
        lm.generate(["a", "b" * 60], max_new_tokens=5)
    with pytest.raises(UserError, match="Prompt 0 has no tokens"):
        lm.generate_ids([[]])


def test_loads_from_a_folder(llama, tokenizer, tmp_path):
    llama.save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    lm = HuggingFaceLM.from_pretrained(str(tmp_path))
    options = dict(max_new_tokens=8, temperature=0)
    assert lm.generate(["Hello"], **options) == HuggingFaceLM(llama, tokenizer).generate(["Hello"], **options)
    with pytest.raises(UserError, match="cannot be loaded"):
        HuggingFaceLM.from_pretrained(str(tmp_path / "nothing"))


@pytest.mark.parametrize("padded", [False, True])
def test_cache_and_attention_give_what_transformers_gives(tokenizer, padded):
    torch.manual_seed(1)
    ids = torch.randint(0, 250, (3, 30))
    mask = torch.ones_like(ids, dtype=torch.bool)
    if padded:
        mask[0, :4], mask[2, :1] = False, False
    model = make_model(transformers.LlamaForCausalLM, transformers.LlamaConfig(**shape(tokenizer)))
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask.long(), position_ids=positions).logits
        lm = HuggingFaceLM(model, tokenizer)
        assert model.config._attn_implementation == "lit_core_packed"
        logits, cache = lm.logits(ids[:, :6], lm.new_cache(), mask=mask[:, :6])
        parts = [logits]
        for place in range(6, 20):
            logits, cache = lm.logits(ids[:, place : place + 1], cache)
            parts.append(logits)
        cache = lm.keep_rows(cache, [0, 2])
        kept = []
        for place in range(20, 30):
            logits, cache = lm.logits(ids[[0, 2], place : place + 1], cache)
            kept.append(logits)
    real = mask[:, :20]
    torch.testing.assert_close(torch.cat(parts, 1)[real], expected[:, :20][real], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(kept, 1), expected[[0, 2], 20:], rtol=1e-4, atol=1e-4)


def test_what_a_row_becomes_does_not_depend_on_who_ends_before_it(llama, tokenizer):
    stopping = Tokenizer.bytes()
    lm = HuggingFaceLM(llama, stopping)
    prompts = [[place, 7, 9] for place in range(24)]
    options = dict(max_new_tokens=25, temperature=1.5, repetition_penalty=1.1)
    free = lm.generate_ids(prompts, stop_at_end=False, batch_size=24, **options)
    stopping.end_of_text = max(range(250), key=lambda token: sum(token in row for row in free))
    ended = lm.generate_ids(prompts, batch_size=24, **options)
    cut = [row[: row.index(stopping.end_of_text)] if stopping.end_of_text in row else row for row in free]
    assert ended == cut and sum(len(row) < 25 for row in ended) >= 6
