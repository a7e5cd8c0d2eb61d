"""Each process reads its own part of a pretrained model of transformers, and together they have all of it."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hf_models import SHAPE, spread
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

pytest.importorskip("transformers", minversion="5.23")

import transformers
from safetensors.torch import load_file, save_file

from lit_core.errors import UserError
from lit_core.lightning.later_weights import lacks_weights, weights_come_later
from lit_core.lm import divided_loading
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.nn import HFConfig
from lit_moe.nn.hf_decoder import HFDecoder
from lit_moe.parallel.sharding import shard

_EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=8)
_LATENT = dict(
    q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4, n_routed_experts=6,
    num_experts_per_tok=2, moe_intermediate_size=8, n_shared_experts=1, first_k_dense_replace=1, n_group=1,
    topk_group=1, num_key_value_heads=4,
)  # fmt: skip
KINDS = {
    "llama": dict(tie_word_embeddings=True),
    "gemma2": dict(head_dim=4, sliding_window=32),
    "phi3": dict(),
    "mixtral": dict(num_local_experts=6, num_experts_per_tok=2),
    "qwen3_moe": dict(_EXPERTS, head_dim=8),
    "qwen3_next": dict(
        _EXPERTS, head_dim=8, shared_expert_intermediate_size=8, linear_num_value_heads=4, linear_num_key_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8, layer_types=["linear_attention", "full_attention"],
    ),
    "deepseek_v2": dict(_LATENT),
    "deepseek_v3": dict(_LATENT),
    "gpt_oss": dict(num_local_experts=6, num_experts_per_tok=2, head_dim=8),
}  # fmt: skip


def save(kind, folder, **changes):
    """Save a random model of transformers in several shards; its vocabulary divides unevenly."""
    values = {**SHAPE, "vocab_size": 261, **KINDS[kind], **changes}
    model = spread(transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **values)))
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(buffer)
    model.save_pretrained(folder, max_shard_size="10KB")
    Tokenizer.bytes().save(folder)
    return str(folder)


def compare(rank, size, store, folders, sides):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", sides, mesh_dim_names=("data_parallel", "expert_parallel"))
    for folder in folders:
        with weights_come_later():
            divided = HFDecoder(HFConfig(model=folder))
        assert lacks_weights(divided) and all(parameter.is_meta for parameter in divided.parameters())
        shard(divided, mesh)
        divided.read_weights(torch.device("cpu"))
        whole = HFDecoder(HFConfig(model=folder))
        assert divided._divides == whole._divides
        mine, expected = divided.state_dict(), whole.state_dict()
        assert mine.keys() == expected.keys()
        for name, value in expected.items():
            own = mine[name].full_tensor() if isinstance(mine[name], DTensor) else mine[name]
            assert torch.equal(own, value), (folder, name)
        for (name, one), (_, other) in zip(divided.named_buffers(), whole.named_buffers(), strict=True):
            assert torch.equal(one, other), (folder, name)
        for (name, one), (_, other) in zip(divided.named_parameters(), whole.named_parameters(), strict=True):
            assert one.requires_grad == other.requires_grad, (folder, name)
        ids = torch.arange(30).view(2, 15) % 256
        torch.testing.assert_close(divided.eval().hidden(ids), whole.eval().hidden(ids), rtol=0, atol=1e-5)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_weights_that_one_reads(tmp_path):
    folders = [save(kind, tmp_path / kind) for kind in KINDS]
    mp.spawn(compare, (2, tmp_path / "store", folders, (2, 1)), nprocs=2)


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(1, 2), (2, 2)], ids=str)
def test_experts_of_groups_of_processes_are_those_that_one_reads(tmp_path, sides):
    kinds = ["mixtral", "qwen3_moe", "qwen3_next", "deepseek_v2", "deepseek_v3", "gpt_oss"]
    folders = [save(kind, tmp_path / kind) for kind in kinds]
    mp.spawn(compare, (sides[0] * sides[1], tmp_path / "store", folders, sides), nprocs=sides[0] * sides[1])


@pytest.mark.slow
def test_few_experts_are_divided_along_their_width(tmp_path):
    """There transformers would put the halves of two fused matrices in another order."""
    folders = [save("mixtral", tmp_path / "few", num_local_experts=2), save("phi3", tmp_path / "phi3")]
    mp.spawn(compare, (4, tmp_path / "store", folders, (4, 1)), nprocs=4)


def read(folder):
    with weights_come_later():
        decoder = HFDecoder(HFConfig(model=str(folder)))
    decoder.read_weights(torch.device("cpu"))
    return decoder


def test_a_part_of_each_tensor_is_read_and_once(tmp_path, monkeypatch):
    """A rank of two that are not there: nothing is sent between them."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    folder = save("qwen3_moe", tmp_path / "model")
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        with weights_come_later():
            decoder = HFDecoder(HFConfig(model=folder))
        total = sum(parameter.numel() for parameter in decoder.parameters())
        shard(decoder, init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "expert_parallel")))
        numbers, opened = [], divided_loading.open_weights
        monkeypatch.setattr(divided_loading, "open_weights", lambda path: _Counted(opened(path), numbers))
        monkeypatch.setattr(divided_loading, "_first_of_all", lambda problem: problem)
        decoder.read_weights(torch.device("cpu"))
        assert 0.4 * total < sum(numbers) < 0.55 * total
    finally:
        dist.destroy_process_group()


class _Counted:
    """Weights, or a tensor of them, that count the numbers that are read."""

    def __init__(self, inner, numbers):
        self._inner, self._numbers = inner, numbers

    def get_slice(self, name):
        return _Counted(self._inner.get_slice(name), self._numbers)

    def __getitem__(self, region):
        values = self._inner[region]
        self._numbers.append(values.numel())
        return values

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("model.norm.weight"), r"lack 1 tensors of its config.json, such as model.norm.weight"),
        (
            lambda state: state.update({"lm_head.weight": torch.zeros(264, 16)}),
            r"lm_head.weight as \(261, 16\), but its weights hold \(264, 16\)",
        ),
        (
            lambda state: state.update({"model.layers.0.mlp.experts.3.up_proj.weight": torch.zeros(9, 16)}),
            r"experts.* cannot be made of its tensors|as \(6, 16, 16\)",
        ),
        (lambda state: state.pop("model.layers.1.mlp.experts.5.up_proj.weight"), r"experts"),
        (lambda state: state["model.norm.weight"].fill_(torch.nan), "model.norm.weight holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(tmp_path, change, said):
    folder = save("qwen3_moe", tmp_path / "model")
    state = {}
    for file in sorted((tmp_path / "model").glob("*.safetensors")):
        state |= load_file(file)
        file.unlink()
    (tmp_path / "model" / "model.safetensors.index.json").unlink()
    change(state)
    save_file(state, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"The language model is .*{said}"):
        read(folder)


def test_a_missing_shard_and_tied_weights_that_differ_are_refused(tmp_path):
    folder = save("llama", tmp_path / "model")
    shard_file = sorted((tmp_path / "model").glob("*.safetensors"))[0]
    content = load_file(shard_file)
    assert "lm_head.weight" not in content
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = "other.safetensors"
    save_file({"lm_head.weight": torch.zeros(261, 16)}, tmp_path / "model" / "other.safetensors", {"format": "pt"})
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"ties lm_head.weight to model.embed_tokens.weight, but its weights hold two"):
        read(folder)
    shard_file.unlink()
    with pytest.raises(UserError, match=f"names {shard_file.name}, but there is no such file"):
        read(folder)


@pytest.mark.parametrize("limit", [0, 1 << 24], ids=["shrunk", "itself"])
def test_small_copies_tell_what_the_models_do(limit, monkeypatch):
    """Gemma 2 caps its logits; Qwen3-Next has layers that carry a state over documents."""
    monkeypatch.setattr("lit_moe.nn.hf_decoder._SMALL", limit)
    for kind in ("gemma2", "qwen3_next"):
        described = HFConfig(config=dict(model_type=kind, **SHAPE) | KINDS[kind] | dict(num_attention_heads=8))
        whole = HFDecoder(described)
        with weights_come_later():
            empty = HFDecoder(described)
        assert whole._divides is empty._divides is (kind != "gemma2")
        for decoder in (whole, empty):
            decoder.separate_documents(20)
        ways = [list(decoder._documents._ways.values()) for decoder in (whole, empty)]
        assert ways[0] == ways[1]


def test_a_model_without_a_small_copy_is_built_whole(monkeypatch):
    monkeypatch.setattr("lit_moe.nn.hf_decoder._SMALL", 0)
    monkeypatch.setattr("lit_moe.nn.hf_decoder.shrink", lambda config: None)
    with weights_come_later(), pytest.warns(UserWarning, match="No small copy of LlamaForCausalLM runs"):
        decoder = HFDecoder(HFConfig(config=dict(model_type="llama", **SHAPE)))
    assert not lacks_weights(decoder)
