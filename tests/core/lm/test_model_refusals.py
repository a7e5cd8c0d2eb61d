"""Folders that are no whole model of a known type: one sentence of ours each, whatever transformers would say."""

import json
import shutil

import pytest

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_moe.doctor.source import small_model

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64}
CODE = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForCausalLM": "modeling_my.MyModel"}


def save(folder, kind, **changes):
    config = transformers.AutoConfig.for_model(kind, **SIZES, **changes, eos_token_id=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    save(home / "mixtral", "mixtral", num_local_experts=4)
    save(home / "olmoe", "olmoe", num_experts=4)
    return home


@pytest.fixture
def folder(models, tmp_path):
    shutil.copytree(models / "mixtral", tmp_path / "model")
    return tmp_path / "model"


def keys(**changes):
    def change(folder, models):
        content = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in content.items() if value != "none"}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def renamed(new):
    return lambda folder, models: (folder / "model.safetensors").rename(folder / new)


def adapters(folder, models):
    (folder / "config.json").rename(folder / "adapter_config.json")


CASES = {
    "code": (keys(model_type="mine", auto_map=CODE), "model_type mine has code of its own, which is never run here"),
    "no_type": (keys(model_type="none"), "config.json names no model_type"),
    "other_type": (keys(model_type="mixtrall"), 'does not know; install a version that does, or .* "mixtral"'),
    "no_causal": (keys(model_type="t5"), "transformers has no CausalLM of the type t5"),
    "no_config": (lambda folder, models: (folder / "config.json").unlink(), "without config.json; fetch the model"),
    "adapters": (adapters, "a folder with adapters of peft alone; merge them"),
    "no_weights": (lambda folder, models: (folder / "model.safetensors").unlink(), "no model.safetensors; fetch the"),
    "half_fetched": (renamed("model.safetensors.incomplete"), "no model.safetensors; fetch the model again"),
    "pickled": (renamed("pytorch_model.bin"), "weights are in pytorch_model.bin, but only safetensors are read"),
    "of_others": (
        lambda folder, models: shutil.copy(models / "olmoe" / "config.json", folder),
        r"its weights lack .* random; they hold model\.layers\.0\.block_sparse_moe",
    ),
    "renamed_type": (keys(model_type="olmoe"), "has the model_type olmoe, of which no model can be made"),
    "pointer": (
        lambda folder, models: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        "is not a safetensors file or is torn",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_told_in_one_sentence(name, folder, models):
    change, sentence = CASES[name]
    change(folder, models)
    with pytest.raises(UserError, match=sentence) as error:
        HuggingFaceLM.from_pretrained(str(folder))
    said = str(error.value)
    assert "trust_remote_code" not in said and "\n" not in said and said.endswith((".", "?")), said


@pytest.mark.parametrize("name", ["code", "no_type", "other_type", "no_config"])
def test_doctor_tells_them_alike(name, folder, models):
    change, sentence = CASES[name]
    change(folder, models)
    with pytest.raises(UserError, match=sentence):
        small_model(str(folder))
