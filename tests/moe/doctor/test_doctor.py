"""`lit-moe doctor`: each check sees what it is for, and what cannot be examined is refused in a sentence."""

import json
import re
import shutil
from pathlib import Path

import pytest

from lit_moe.cli import main
from lit_moe.doctor.check import Finding, checks, purposes
from lit_moe.doctor.examine import found
from lit_moe.doctor.families import build, mixture_families, small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.doctor.table import as_markdown
from lit_moe.meter import TrainingMeter
from lit_moe.module import MoELanguageModel
from lit_moe.nn import HFDecoder

MIXTRAL = {"model_type": "mixtral", "num_hidden_layers": 32, "num_local_experts": 8, "hidden_size": 4096}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(MIXTRAL))


@pytest.fixture
def folder():
    """A model of transformers, as it saves it, in two files of weights."""
    build(small_config("mixtral")).save_pretrained("model", max_shard_size=800_000)
    assert len(list(Path("model").glob("*.safetensors"))) > 1
    return Path("model")


@pytest.fixture
def said(capsys):
    def run(*words):
        code = main(["doctor", *words])
        return code, capsys.readouterr()

    return run


def test_a_config_alone_is_examined_and_the_table_kept(said):
    code, shown = said("config.json", "--checks", "[export]", "--output", "found.md")
    assert code == 0, shown.err
    assert shown.out.split() == ["export", "pass", "Wrote", "found.md"]
    assert "| config.json | pass |" in Path("found.md").read_text()
    assert [Path(one["path"]).name for one in json.loads(Path("found.md.run.json").read_text())["inputs"]] == [
        "config.json"
    ]
    code, shown = said("mixtral", "--checks", "[export]", "--output", "found.json")
    assert code == 0, shown.err
    models = json.loads(Path("found.json").read_text())["models"]
    assert models == {"mixtral": {"export": {"verdict": "pass", "reason": ""}}}


def test_a_failed_check_ends_with_1_and_says_which_and_why(said, monkeypatch):
    forward = HFDecoder.call
    monkeypatch.setattr(HFDecoder, "call", lambda self, **inputs: _shifted(forward(self, **inputs)))
    code, shown = said("config.json", "--checks", "[export]", "--output", "found.md")
    assert code == 1
    assert shown.err.endswith("1 of 1 checks failed: export of config.json.\n")
    assert "The logits of the exported model differ by up to 1." in shown.out
    assert "| config.json | fail |" in Path("found.md").read_text()


def _shifted(output):
    output.logits = output.logits + 1
    return output


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "qwen3"}, "a qwen3 without a mixture of experts"),
        ({"model_type": "mixtrall"}, 'which transformers .* does not know; .* Did you mean "mixtral"?'),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}, "has code of its own, which is never run here"),
        ({"model_type": "clip"}, "of which transformers has no causal language model"),
        ({"num_local_experts": "many"}, "whose config describes no model"),
        ({"num_experts_per_tok": 9}, "whose config sends a token to 9 experts, but has 8; correct its config"),
    ],
)
def test_a_config_that_cannot_be_examined_is_refused(change, sentence, said):
    Path("config.json").write_text(json.dumps(MIXTRAL | change))
    code, shown = said("config.json")
    assert code == 2 and shown.out == ""
    assert re.fullmatch(rf"lit-moe: model is config.json, .*{sentence}.*\n", shown.err)


def test_code_beside_a_model_is_never_run(folder, said):
    values = json.loads((folder / "config.json").read_text())
    values |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "own.py").write_text("open('ran', 'w')")
    code, shown = said("model")
    assert code == 2 and "has code of its own, which is never run here" in shown.err and not Path("ran").exists()


def test_a_half_downloaded_folder_is_refused(folder, said):
    second = sorted(folder.glob("*.safetensors"))[1]
    content = second.read_bytes()
    second.unlink()
    code, shown = said("model")
    assert code == 2 and f"names {second.name}, but there is no such file in model" in shown.err
    second.write_bytes(content[: len(content) // 2])
    code, shown = said("model")
    assert code == 2 and f"{second} is not a safetensors file or is torn" in shown.err
    (folder / "model.safetensors.index.json").unlink()
    code, shown = said("model")
    assert code == 2 and "without model.safetensors.index.json" in shown.err
    shutil.rmtree(folder)
    folder.mkdir()
    code, shown = said("model")
    assert code == 2 and "model is model, a folder without config.json" in shown.err


def test_a_config_whose_shapes_contradict_the_weights_is_refused(folder, said):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_key_value_heads": 1}))
    code, shown = said("model")
    assert code == 2 and "k_proj.weight as (16, 64), but model-0000" in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("num_hidden_layers", 9, "whose config describes 9 layers, but its weights hold 4"),
        ("num_local_experts", 4, "whose config has 4 experts, but its weights hold 8"),
        ("num_local_experts", 17, "whose config has 17 experts, but its weights hold 8"),
    ],
)
def test_a_config_of_other_layers_or_experts_than_the_weights_is_refused(key, value, sentence, folder, said):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {key: value}))
    code, shown = said("model")
    assert (
        code == 2
        and shown.err == f"lit-moe: model is model, {sentence}; give the config that belongs to the weights.\n"
    )


def test_a_file_of_the_model_is_not_overwritten(folder, said):
    before = (folder / "config.json").read_bytes()
    for spelling in ("model", str(folder.resolve())):
        code, shown = said(spelling, "--checks", "[gates]", "--output", "model/config.json", "--overwrite")
        assert code == 2 and f"output is model/config.json, a file of {spelling}, which models reads" in shown.err
    assert (folder / "config.json").read_bytes() == before
    for _ in range(2):  # a page of our own in the folder can be replaced
        assert said("model", "--checks", "[gates]", "--output", "model/found.md", "--overwrite")[0] == 0


def test_other_words_are_refused(said):
    assert "checks is empty; name some of" in said("mixtral", "--checks", "[]")[1].err
    assert "lacks models" in said()[1].err
    assert "output is found.csv, but must end in .md" in said("mixtral", "--output", "found.csv")[1].err
    assert "checks has exprot, but must be of " in said("mixtral", "--checks", "[exprot]")[1].err
    assert "there is no such file or folder" in said("nowhere/config.json")[1].err


# slow, as the next: a small model is trained several times, and the walk over all families below shows that they pass
@pytest.mark.slow
def test_a_resume_that_differs_is_seen(monkeypatch):
    specimen, check = Specimen(small_config("mixtral")), checks()["resume"]
    assert found(check, specimen) == Finding("pass")
    monkeypatch.setattr(TrainingMeter, "load_state_dict", lambda self, state: None)
    assert found(check, specimen).verdict == "fail"


@pytest.mark.slow
def test_two_processes_that_differ_are_seen(monkeypatch):
    specimen, check = Specimen(small_config("mixtral")), checks()["data_parallel"]
    assert found(check, specimen) == Finding("pass")
    monkeypatch.setattr(MoELanguageModel, "step_loss", lambda self, loss, scored: loss)
    assert "differs by" in found(check, specimen).reason


def test_the_page_names_each_check():
    page = (Path(__file__).parents[3] / "docs" / "moe.md").read_text()
    for name, purpose in purposes().items():
        assert f"| `{name}` |" in page and purpose.endswith(".") and not purpose.startswith("The check"), name


def test_the_table_joins_models_with_the_same_reason():
    findings = {
        "a": {"one": Finding("pass"), "two": Finding("refused", "It cannot.")},
        "b": {"one": Finding("fail", "Wrong."), "two": Finding("refused", "It cannot.")},
    }
    lines = as_markdown(findings, {"two": "It compares."}, {"c": "No."})
    assert lines[2:4] == ["| a | pass | refused |", "| b | fail | refused |"]
    assert (
        "- refused, a, b: It cannot." in lines and "**two**: 2 refused. It compares." in lines and "- c: No." in lines
    )


# slow: each family is trained several times by each check
@pytest.mark.slow
def test_no_check_fails_on_any_family():
    failed = {}
    for name in mixture_families():
        for check_name, check in checks().items():
            finding = found(check, Specimen(small_config(name)))
            if finding.verdict == "fail":
                failed[name, check_name] = finding.reason
    assert failed == {}
