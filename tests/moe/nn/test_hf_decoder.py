"""Models of transformers in the place of our decoder, against transformers itself."""

import pytest
import torch
from hf_models import DENSE, MIXTURES, config, make, spread, tokens
from lightning.pytorch.plugins.precision import HalfPrecision
from torch.utils.flop_counter import FlopCounterMode

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.functional.token_nll import token_nll
from lit_moe.nn import HFConfig, HFDecoder, auxiliary_losses, moe_layers

transformers = pytest.importorskip("transformers")
KINDS = [*MIXTURES, *DENSE]


def decoder(kind, changes=None, **options):
    """Return our view of a model with the weights of `make`."""
    torch.manual_seed(0)
    ours = HFDecoder(HFConfig(config=config(kind, **(changes or {})), **options))
    spread(ours.model)
    return ours


def counted(ours):
    return [(layer.stats.counts.tolist(), int(layer.stats.tokens)) for layer in moe_layers(ours).values()]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_and_head_make_the_logits_of_transformers(kind):
    ours, theirs, ids = decoder(kind).eval(), make(kind), tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(ours(ids), theirs(ids).logits)
        hidden = ours.hidden(ids)
        loss = theirs(ids, labels=ids).loss
        nll = token_nll(hidden[:, :-1], ids[:, 1:], ours.head, 64, max_logits=128)
    assert hidden.shape[-1] == (64 if kind == "gemma2" else 16)
    assert float(nll.mean()) == pytest.approx(float(loss), rel=1e-5)
    assert ours.config.vocab_size == 64 and len(ours.layers) == 2
    assert bool(moe_layers(ours)) is (kind in MIXTURES)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gpt2"])
def test_padding_changes_nothing(kind, side):
    ours, ids = decoder(kind).eval(), tokens(3, 12)
    mask = torch.tensor([[(i < n) if side == "right" else (i >= 12 - n) for i in range(12)] for n in (12, 5, 1)])
    with torch.no_grad():
        logits = ours(ids, mask=mask)
        seen = counted(ours)
        alone = [ours(row[real][None])[0] for row, real in zip(ids, mask, strict=True)]
    for row in range(3):
        torch.testing.assert_close(logits[row][mask[row]], alone[row], rtol=1e-4, atol=1e-5)
    assert all(n == 18 for _, n in seen)


@pytest.mark.parametrize("with_padding", [False, True])
@pytest.mark.parametrize("kind", ["mixtral", "olmoe", "llama", "gpt2"])
def test_documents_in_one_row_equal_documents_apart(kind, with_padding):
    ours, ids = decoder(kind).eval(), tokens(2, 15)
    documents = torch.tensor([[0] * 4 + [1] * 9 + [2] * 2, [0] * 15])
    mask = None
    if with_padding:
        mask = torch.ones(2, 15, dtype=torch.bool)
        mask[0, 11:], mask[1, 13:], mask[1, :2] = False, False, False
    with torch.no_grad():
        logits = ours(ids, mask=mask, document_ids=documents)
        seen = counted(ours)
        pieces = [(0, 0, 4), (0, 4, 11), (1, 2, 13)] if with_padding else [(0, 0, 4), (0, 4, 13), (1, 0, 15)]
        apart = [ours(ids[row : row + 1, start:end])[0] for row, start, end in pieces]
    for (row, start, end), alone in zip(pieces, apart, strict=True):
        torch.testing.assert_close(logits[row, start:end], alone, rtol=1e-4, atol=1e-5)
    assert all(n == (22 if with_padding else 30) for _, n in seen)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", [*MIXTURES, "llama", "qwen3", "gpt2"])
def test_flops_equal_torchs_counter(kind, tied):
    changes = {"tie_word_embeddings": tied, "experts_implementation": "eager"} if kind in MIXTURES else {}
    ours = decoder(kind, changes | {"tie_word_embeddings": tied})
    # repeated keys and values are no products; the kernel that torch can count
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        ours(tokens(3, 16))
    assert counter.get_total_flops() == 3 * 16 * ours.flops_per_token(16)


def test_activation_checkpointing_changes_nothing():
    results = []
    for recompute in (False, True):
        ours = decoder("mixtral", balance_weight=0.5, activation_checkpointing=recompute).train()
        logits = ours(tokens(2, 16))
        auxiliary = auxiliary_losses(ours)
        before = [layer.stats for layer in moe_layers(ours).values()]
        (logits.logsumexp(-1).mean() + auxiliary).backward()
        assert all(layer.stats is stats for layer, stats in zip(moe_layers(ours).values(), before, strict=True))
        results.append((logits, auxiliary, *[parameter.grad for parameter in ours.parameters()]))
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_a_folder_is_loaded_with_its_tokenizer(tmp_path):
    theirs = make("olmoe", vocab_size=300)
    theirs.save_pretrained(tmp_path / "model")
    Tokenizer.bytes().save(tmp_path / "model")
    ours = HFDecoder(HFConfig(model=str(tmp_path / "model")))
    assert ours.training and all(parameter.dtype == torch.float32 for parameter in ours.parameters())
    weights = ours.state_dict()
    for name, value in theirs.state_dict().items():
        assert torch.equal(weights[f"model.{name}"], value)
    ours.check_tokenizer(Tokenizer.bytes())
    with pytest.raises(UserError, match=r"The model's tokenizer is .* prepare the data with"):
        ours.check_tokenizer(Tokenizer.train_bpe(["a b c a b"], 258))


def test_a_plain_description_makes_the_network_anew():
    ours = decoder("qwen2_moe", z_weight=0.5)
    again = HFDecoder(HFConfig(**ours.describe()))
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.eval()(tokens(2, 9)), ours.eval()(tokens(2, 9)))
    assert next(iter(moe_layers(again).values())).router.z_weight == 0.5


def test_random_weights_take_the_vocabulary_that_is_asked_for():
    shape = {key: value for key, value in config("llama").items() if key != "vocab_size"}
    assert HFDecoder(HFConfig(config=shape), vocab_size=77).config.vocab_size == 77
    ours = HFDecoder(HFConfig(config=config("llama")), vocab_size=77)
    assert ours.config.vocab_size == 64
    with pytest.raises(UserError, match="vocab_size of 64, but the data's tokenizer has 257 tokens"):
        ours.check_tokenizer(Tokenizer.bytes())


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (dict(), ["neither `model` nor `config`"]),
        (dict(model="x", config=config("llama")), ["both `model` and `config`"]),
        (dict(config={"hidden_size": 8}), ["no model_type"]),
        (dict(config={"model_type": "mixtrall"}), ["model_type mixtrall"]),
        (dict(config={"model_type": "vit"}), ["model_type vit"]),
        (dict(config=config("llama", hidden_size="wide")), ["model_type llama"]),
        (dict(config=config("llama", initializer_rnage=0.1)), ["has initializer_rnage", "initializer_range"]),
        (dict(config=config("llama"), balance_weight=0.1), ["`balance_weight` is 0.1", "no gate was found"]),
        (dict(config=config("mixtral"), z_weight=-1.0), ["z_weight is -1.0"]),
        (dict(model="/no/such/model"), ["/no/such/model", "cannot be loaded"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options, parts):
    with pytest.raises(UserError) as error:
        HFDecoder(HFConfig(**options))
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value), error.value


def test_a_sequence_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="65 tokens but the model takes 64"):
        decoder("llama")(tokens(1, 65))


@pytest.mark.parametrize("kind", ["llama", "olmoe"])
def test_rotary_positions_stay_exact_in_16_bits(kind):
    exact, ours = decoder(kind), decoder(kind)
    HalfPrecision("bf16-true").convert_module(ours)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    frequencies = [dict(each.model.named_buffers())["model.rotary_emb.inv_freq"] for each in (exact, ours)]
    assert frequencies[1].dtype == torch.float32 and torch.equal(*frequencies)


def test_what_transformers_keeps_in_float32_stays_exact():
    ours = decoder("llama")
    ours.model._keep_in_fp32_modules_strict = ["correction"]
    ours.model.model.register_buffer("correction", torch.tensor([1.001]))
    ours.model.model.register_buffer("other", torch.tensor([1.001]))
    ours.to(torch.bfloat16)
    assert ours.model.model.correction.item() == pytest.approx(1.001, abs=1e-6)
    assert ours.model.model.other.dtype == torch.bfloat16
    assert ours.to("meta").model.model.correction.dtype == torch.float32


def test_the_auxiliary_loss_of_an_undivided_mixture_is_not_taken_for_its_logits():
    mixture = dict(num_local_experts=4, num_experts_per_tok=2, logits_scaling=2.0)
    shape = {key: value for key, value in config("mixtral").items() if key not in ("model_type", "num_local_experts")}
    ours = HFDecoder(HFConfig(config={**shape, **mixture, "model_type": "granitemoe", "output_router_logits": True}))
    assert ours(tokens(2, 5)).shape == (2, 5, 64)


def test_random_weights_are_in_float32_whatever_the_config_says():
    assert {parameter.dtype for parameter in decoder("llama", {"dtype": "bfloat16"}).parameters()} == {torch.float32}
