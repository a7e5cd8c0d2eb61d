"""A model's folder is refused before anything is built where its config asks for more than its weights hold."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from lit_core.errors import UserError
from lit_core.lm.model_files import INDEX, SINGLE, check_model_folder, weight_files
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.interop.folder import ModelFolder

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    **{"vocab_size": 300, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"max_position_embeddings": 131072, "rope_theta": 500000, "bos_token_id": 128000},
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    weights = {f"model.layers.{n}.mlp.up_proj.weight": np.zeros((16, 8), np.float32) for n in range(2)}
    save_file({"model.embed_tokens.weight": np.zeros((300, 8), np.float32), **weights}, path / SINGLE)
    (path / "config.json").write_text(json.dumps(CONFIG))
    Tokenizer.bytes().save(path)
    return path


def change(folder, **keys):
    (folder / "config.json").write_text(json.dumps(CONFIG | keys))


def index(folder, name):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))


def test_a_true_config_is_taken(folder):
    check_model_folder(folder)
    assert ModelFolder(str(folder)).companions()


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 100_000},
        {"text_config": {"num_hidden_layers": 4}},
        {"n_layer": 1000},
        {"encoder_layers": 1000},
        {"vocab_size": 2**31},
        {"hidden_size": 1 << 20},
        {"intermediate_size": 1 << 40},
        {"d_ff": 1 << 20},
        {"num_local_experts": 10**6},
    ],
)
def test_a_config_that_asks_for_more_is_refused(folder, keys):
    change(folder, **keys)
    with pytest.raises(UserError, match=r"config\.json has the \w+ \d+, but the weights beside it are 3 tensors"):
        ModelFolder(str(folder))


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "x.bin", "", "."])
def test_an_index_names_files_of_its_folder(folder, name):
    index(folder, name)
    with pytest.raises(UserError, match=r"must name \.safetensors files beside it"):
        weight_files(folder)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{}", "[" * 5000])
def test_a_damaged_index_is_named(folder, content):
    (folder / INDEX).write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json.*fetch or save"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, (1 << 62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}" + b"x"],
)
def test_torn_weights_are_named(folder, content):
    (folder / SINGLE).write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file or is torn"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "chat_template.jinja", SINGLE, "other"])
def test_links_of_a_model_folder_are_not_followed(folder, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(UserError, match=rf"{name} is a link out of"):
        ModelFolder(str(folder))


def test_the_cache_of_the_hub_links_to_its_blobs(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert ModelFolder(str(snapshot)).companions() and Tokenizer.load(snapshot).vocab_size == 257
    (snapshot / "chat_template.jinja").symlink_to("../../../../secret")
    (tmp_path.parent / "secret").write_text("x")
    (tmp_path / "secret").write_text("x")
    with pytest.raises(UserError, match="is a link"):
        ModelFolder(str(snapshot))


def test_blobs_that_are_a_link_are_no_cache(folder, tmp_path):
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "models--a--b/blobs").symlink_to(tmp_path.parent)
    (tmp_path.parent / "secret").write_text("{}")
    (snapshot / "other.json").symlink_to("../../blobs/secret")
    with pytest.raises(UserError, match=r"other\.json is a link out of"):
        ModelFolder(str(snapshot))


def test_ids_of_a_tokenizer_have_no_large_gaps(folder):
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["model"]["vocab"]["zz"] = 2**31
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(UserError, match="has the id 2147483648, but only 258 tokens"):
        Tokenizer.load(folder)
