"""A folder of transformers' format runs none of its own Python, also if somebody would answer yes."""

import ast
import json
import shutil
from pathlib import Path

import pytest

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_detect.nn.encoders import load_encoder

ROOT = Path(__file__).parents[1]
BERT = ROOT / "tests" / "fixtures" / "before_the_move" / "bert"
READERS = ("from_pretrained", "from_config")


def calls():
    """Yield each call that reads or builds a model, tokenizer or config of transformers, with its place."""
    for package in ("lit_core", "lit_moe", "lit_valuation", "lit_detect"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            for node in ast.walk(ast.parse(text)) if any(name in text for name in READERS) else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = getattr(node.func.value, "id", "")
                    if node.func.attr in READERS and owner.startswith(("Auto", "kind")):
                        yield pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}")


@pytest.mark.parametrize("call", calls())
def test_no_call_leaves_the_question_to_whoever_answers(call):
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    assert getattr(arguments.get("trust_remote_code"), "value", None) is False
    reads_weights = call.func.attr == "from_pretrained" and call.func.value.id not in ("AutoConfig", "AutoTokenizer")
    if reads_weights and "gguf_file" not in arguments:
        assert arguments["use_safetensors"].value is True


@pytest.fixture
def with_code(tmp_path, monkeypatch):
    """A folder whose config, model and tokenizer ask for Python files of the folder, and somebody who answers yes."""
    folder = tmp_path / "model"
    shutil.copytree(BERT, folder)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own:\n    pass\n")
    kinds = (
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForSequenceClassification",
        "AutoModelForMaskedLM",
    )
    for name, own in (
        ("config.json", {"model_type": "own", "auto_map": dict.fromkeys(kinds, "code.Own")}),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", "code.Own"]}}),
    ):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | own))
    monkeypatch.setattr("builtins.input", lambda _: "y")
    return str(folder)


@pytest.mark.parametrize(
    "load",
    [HuggingFaceLM.from_pretrained, lambda path: load_encoder(path, 32, 0, classifies=True)],
    ids=["language model", "encoder"],
)
def test_the_folder_s_own_code_is_not_run(load, with_code, tmp_path):
    with pytest.raises(UserError, match="model_type own has code of its own, which is never run here"):
        load(with_code)
    assert not (tmp_path / "ran").exists()
