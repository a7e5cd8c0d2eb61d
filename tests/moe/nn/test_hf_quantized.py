"""Models of 8 and 4 bits as they are published: read as their numbers mean, or refused."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.doctor.families import build, small_config
from lit_moe.nn import HFConfig, HFDecoder

#: The values of four bits, E2M1 of the OCP microscaling formats.
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def describe(folder, quantization, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization} | changes))


def mxfp4(folder):
    """Save a GPT-OSS whose experts are blocks of 32 numbers of 4 bits; return what they mean, one by one."""
    torch.manual_seed(0)
    config = small_config("gpt_oss")
    config.intermediate_size = 64  # blocks of 32 divide it
    build(config).save_pretrained(folder)
    state, meant = load_file(folder / "model.safetensors"), {}
    for name in [name for name in state if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, rows, columns = state.pop(name).shape
        blocks = torch.randint(256, (experts, columns, rows // 32, 16), dtype=torch.uint8)
        scales = torch.randint(118, 130, (experts, columns, rows // 32), dtype=torch.uint8)
        state |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        values, exponents = blocks[0].tolist(), scales[0].tolist()  # the other experts are read in the same way
        meant[name] = torch.zeros(rows, columns)
        for column in range(columns):
            for row in range(rows):
                byte = values[column][row // 32][row % 32 // 2]
                number = E2M1[byte >> 4 if row % 2 else byte & 15]
                meant[name][row, column] = number * 2.0 ** (exponents[column][row // 32] - 127)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    describe(folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]})
    return {name: (weight[None], 1) for name, weight in meant.items()}


def fp8(folder, block=8):
    """Save a DeepSeek-V3 whose matrices are square blocks of numbers of 8 bits; return what the layers' mean."""
    torch.manual_seed(0)
    build(small_config("deepseek_v3")).save_pretrained(folder)
    state, meant = load_file(folder / "model.safetensors"), {}
    for name in [name for name in state if "proj" in name and state[name].dim() == 2]:
        weight = (400 * state[name]).to(torch.float8_e4m3fn)
        scales = torch.rand([math.ceil(side / block) for side in weight.shape]) / 100 + 0.001
        state |= {name: weight, f"{name}_scale_inv": scales}
        meant[name] = weight.float()
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                meant[name][i * block : (i + 1) * block, j * block : (j + 1) * block] *= scales[i, j]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    size = {"weight_block_size": [block, block], "fmt": "e4m3", "activation_scheme": "dynamic"}
    describe(folder, {"quant_method": "fp8", **size})
    experts = [name for name in meant if ".experts." in name]
    read = {name: (weight, None) for name, weight in meant.items() if name not in experts}
    layer = min(name.partition(".mlp.")[0] for name in experts)
    down = torch.stack([meant[f"{layer}.mlp.experts.{index}.down_proj.weight"] for index in range(2)])
    return read | {f"{layer}.mlp.experts.down_proj": (down, 2)}


@pytest.mark.parametrize("save", [mxfp4, fp8])
def test_published_numbers_are_what_their_blocks_mean_and_are_trained_in_float32(save, tmp_path):
    meant = save(tmp_path)
    Tokenizer.bytes().save(tmp_path)
    ours = HFDecoder(HFConfig(str(tmp_path)))
    read = dict(ours.model.named_parameters())
    assert all(weight.dtype == torch.float32 and weight.requires_grad for weight in read.values())
    for name, (weight, count) in meant.items():
        assert torch.equal(read[name][:count], weight), name
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, weight in theirs.named_parameters():
        assert torch.equal(read[name], weight), name
    described = ours.describe()["config"]
    assert "quantization_config" not in described
    ours.model.config.save_pretrained(tmp_path / "exported")
    assert "quantization_config" not in json.loads((tmp_path / "exported" / "config.json").read_text())
    ids = torch.randint(4, 100, (2, 9))
    ours(ids).sum().backward()
    assert all(read[name].grad is not None for name in meant)


def test_blocks_that_transformers_would_scale_wrongly_are_refused(tmp_path):
    fp8(tmp_path, block=32)  # one matrix is 48 wide
    Tokenizer.bytes().save(tmp_path)
    with pytest.raises(
        UserError, match=r"proj.weight of shape \(.*48.*\) is quantised in blocks of \(32, 32\), the last"
    ):
        HFDecoder(HFConfig(str(tmp_path)))


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "of_tomorrow"])
def test_other_methods_are_refused_with_what_to_do(method, tmp_path):
    build(small_config("mixtral")).save_pretrained(tmp_path)
    describe(tmp_path, {"quant_method": method})
    with pytest.raises(UserError, match=rf"quantised by {method}, which .*; give a copy of the model in bfloat16"):
        HFDecoder(HFConfig(str(tmp_path)))
