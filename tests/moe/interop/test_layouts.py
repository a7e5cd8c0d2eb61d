"""Every layout that our decoder can have: export and import give equal logits, or the export refuses it."""

import random
from dataclasses import asdict
from functools import partial

import pytest
import torch

pytest.importorskip("transformers")

from all_routers import CLASSES, arguments
from hugging_face import TOKENIZER, load, logits, tokens

from lit_core.errors import UserError
from lit_core.origin import described
from lit_moe.interop import export_model, import_model
from lit_moe.interop.importing import new_checkpoint
from lit_moe.lm import load_module
from lit_moe.nn import Decoder, DecoderConfig, MoEConfig

#: Values of each field, the usual one first.
FIELDS = {
    "n_kv_heads": (None, 1, 2),
    "head_dim": (None, 12),
    "activation": ("silu", "gelu"),
    "rope_theta": (1e4, 5e5),
    "rope_fraction": (1.0, 0.5),
    "norm": ("rmsnorm", "layernorm"),
    "norm_eps": (1e-5, 1e-3),
    "tie_embeddings": (False, True),
    "qk_norm": (None, "head", "all"),
    "qkv_bias": (False, True),
    "clip_qkv": (None, 0.3),
    "activation_checkpointing": (False, True),
}
MIXTURES = [
    None,
    *(
        dict(n_experts=5, top_k=top_k, expert_width=8, n_shared=n_shared, shared_gate=gate, normalize_top_k=normalize)
        for top_k in (1, 2)
        for n_shared, gate in ((0, False), (1, False), (1, True), (2, False), (2, True))
        for normalize in (False, True)[:top_k]
    ),
]
#: Of mixtures that have grown, which an export refuses; see test_grow.
GROWN = {"n_added", "added_warmup"}
OWN = dict(vocab_size=270, n_layers=1, d_model=16, n_heads=4, d_ff=24, max_seq_len=64)


def layouts():
    """Yield each mixture with the usual decoder, each value of each field, and mixtures with several unusual values."""
    draw = random.Random(0)
    for mixture in MIXTURES:
        yield {}, mixture
    for name, values in FIELDS.items():
        for value in values[1:]:
            yield {name: value}, draw.choice(MIXTURES)
    for _ in range(6):
        chosen = draw.sample([name for name in FIELDS if name not in ("rope_fraction", "norm")], 4)
        yield {name: draw.choice(FIELDS[name]) for name in chosen}, draw.choice(MIXTURES)


def there_and_back(folder, shape, mixture, router=None):
    """Return what export says of a layout, and whether the logits are equal after export and after import."""
    torch.manual_seed(0)
    feed_forward = "dense" if mixture is None else MoEConfig(**mixture)
    config = DecoderConfig(**OWN, **shape, feed_forward=feed_forward)
    decoder = Decoder(config, *([] if router is None else [router])).eval()
    for name, parameter in decoder.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.15)
    checkpoint = new_checkpoint(config, {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()})
    checkpoint["tokenizer"] = {"json": TOKENIZER.to_json(), "sha256": TOKENIZER.sha256}
    if router is not None:
        checkpoint["hyper_parameters"]["router"] = described(router)
    paths = {name: str(folder / name) for name in ("ours.ckpt", "out", "again.ckpt")}
    torch.save(checkpoint, paths["ours.ckpt"])
    try:
        export_model(paths["ours.ckpt"], paths["out"])
    except UserError as error:
        assert not (folder / "out").exists()
        return str(error)
    import_model(paths["out"], paths["again.ckpt"])
    ids = tokens(2, 24)
    expected = logits(decoder, ids)
    again = load_module(paths["again.ckpt"])[0].decoder.eval()
    torch.testing.assert_close(logits(load(folder / "out"), ids), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits(again, ids), expected, rtol=0, atol=1e-4)
    return None


def test_the_layouts_have_every_field_of_a_decoder_and_of_a_mixture():
    assert {*FIELDS, *OWN, "feed_forward"} == asdict(DecoderConfig(1, d_model=8)).keys()
    assert MIXTURES[1].keys() | {"backend"} | GROWN == asdict(MoEConfig(1, 1, 1)).keys()


@pytest.mark.parametrize(("shape", "mixture"), list(layouts()), ids=str)
def test_a_layout_comes_back_with_equal_logits_or_is_refused(shape, mixture, tmp_path):
    refusal = there_and_back(tmp_path, shape, mixture)
    if refusal is not None:
        assert "use it through lit-moe" in refusal
        assert shape, "the usual decoder has a family with each mixture"


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_router_comes_back_with_equal_logits_or_is_refused(kind, normalize, tmp_path):
    mixture = dict(n_experts=5, top_k=2, expert_width=8, normalize_top_k=False)
    router = partial(kind, normalize_top_k=normalize, **arguments(kind))
    refusal = there_and_back(tmp_path, {}, mixture, router)
    assert (refusal is None) == router(5, 2).is_softmax_top_k()
