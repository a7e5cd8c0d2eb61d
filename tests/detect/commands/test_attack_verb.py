import json
import sys

import pytest
import torch

from lit_core.cli.main import run
from lit_core.errors import UserError
from lit_core.record import record_path
from lit_detect.attacks import (
    Attack,
    DFTFooler,
    Homoglyph,
    RandomPerturbation,
    TextFooler,
    apply_edits,
)
from lit_detect.commands.attack import attack, attacked_record, chosen, plain
from lit_detect.data.text_shards import write_texts
from lit_detect.detectors import LogLikelihood
from lit_detect.formats import PuJSONL
from lit_detect.formats.litshift import read_records
from lit_detect.records import Edit, Record

RECORDS = [
    Record(
        str(i),
        f"Text {i}: the happy child of Mr. Smith walked quickly to the old house in London.",
        i % 2,
        meta={"n": i},
    )
    for i in range(9)
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in RECORDS))
    return str(path)


def read(path):
    return list(read_records(path))


def main(*args):
    return run("lit-detect", None, {"attack": attack}, ["attack", *args])


def test_machine_texts_are_written_with_all_edits(tmp_path, source):
    output = tmp_path / "out.jsonl"
    config = "configs/detect/attack/entity_swap.yaml"
    assert main("--config", config, "--input", source, "--output", str(output), "--seed", "3") == 0
    found = read(output)
    assert [record.id for record in found] == ["1", "3", "5", "7"] and {record.label for record in found} == {1}
    for record in found:
        original = RECORDS[int(record.id)].text
        edits = [Edit(start, end, "", after) for start, end, after in record.meta["edits"]]
        assert record.attack == "EntitySwap[rules]" and record.meta["original"] == original and record.meta["n"]
        assert apply_edits(original, edits) == record.text != original and record.meta["queries"] == 0
    assert set(tmp_path.iterdir()) == {tmp_path / "in.jsonl", output, record_path(output)}
    assert json.loads(record_path(output).read_text())["sessions"][0]["exit"] == "finished"


def test_prepared_folders_tables_and_other_formats(tmp_path):
    write_texts(tmp_path / "set", RECORDS, source="s", split="test")
    (tmp_path / "t.csv").write_text("text,label\nA cat.,human\nA dog.,machine\n")
    (tmp_path / "pu.jsonl").write_text('{"id": 1, "text": "A dog.", "label": "machine"}\n')
    output = str(tmp_path / "out.jsonl")
    attack(Homoglyph(), output, input=str(tmp_path / "set"), labels="both", limit=7)
    assert len(read(output)) == 7
    attack(Homoglyph(), f"{output}.jsonl", input=str(tmp_path / "t.csv"), labels="human")
    assert [record.meta["original"] for record in read(f"{output}.jsonl")] == ["A cat."]
    attack(Homoglyph(), f"{output}2.jsonl", source=PuJSONL(str(tmp_path / "pu.jsonl"), "pu"))
    assert [record.meta["original"] for record in read(f"{output}2.jsonl")] == ["A dog."]


class DiesOnce(Attack):
    """Ends with an error at its third text, once."""

    name = "DiesOnce"

    def __init__(self):
        self._calls, self._died = 0, False

    def __call__(self, text, seed):
        self._calls += 1
        if self._calls == 3 and not self._died:
            self._died = True
            raise KeyboardInterrupt
        return Homoglyph(fraction=0.5)(text, seed)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, source):
    output, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    attack(_alive(), str(whole), input=source, labels="both")
    killed = DiesOnce()
    with pytest.raises(KeyboardInterrupt):
        attack(killed, str(output), input=source, labels="both")
    assert not output.exists()
    part = tmp_path / ".out.jsonl.attack" / "0.jsonl"
    part.write_bytes(part.read_bytes() + b'{"number": 2, "reco')  # the line at which it was killed
    with pytest.raises(UserError, match="other settings or texts is unfinished"):
        attack(killed, str(output), input=source, labels="both", seed=1)
    attack(killed, str(output), input=source, labels="both")
    assert output.read_bytes() == whole.read_bytes() and killed._calls == 3 + 7
    assert not part.exists()


def _alive():
    found = DiesOnce()
    found._died = True
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_processes_equal_one(tmp_path, source):
    import subprocess

    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom lit_core.cli.main import run\nfrom lit_detect.commands.attack import attack\n"
        "import lit_detect.attacks\nsys.exit(run('lit-detect', None, {'attack': attack}, sys.argv[1:]))\n"
    )
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    command = [sys.executable, str(script), "attack", "--attack", "RandomPerturbation", "--input", source]
    command += ["--output", str(two), "--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    attack(RandomPerturbation(), str(one), input=source)
    assert one.read_bytes() == two.read_bytes()


def test_wrong_arguments_are_one_sentence(tmp_path, source):
    output = str(tmp_path / "out.jsonl")
    (tmp_path / "y.xls").touch()
    for rule, arguments in {
        "must end in .jsonl": {"output": "x.csv", "input": source},
        "both missing": {"output": output},
        "both given": {"output": output, "input": source, "source": PuJSONL(source, "pu")},
        "limit is 0": {"output": output, "input": source, "limit": 0},
        "seed is -1": {"output": output, "input": source, "seed": -1},
        "input is x.parquet, but there is no such": {"output": output, "input": "x.parquet"},
        "must be a file that ends in": {"output": output, "input": str(tmp_path / "y.xls")},
        "exists already": {"output": source, "input": source},
    }.items():
        with pytest.raises(UserError, match=rule):
            attack(Homoglyph(), **arguments)
    with pytest.raises(UserError, match="no such text"):
        chosen([RECORDS[0]], "machine", None)


def test_an_attack_of_an_attacked_text_names_both():
    record = attacked_record(RECORDS[1], "B", Homoglyph()("a", 0))
    assert record.attack == "B" and attacked_record(record, "C", Homoglyph()("a", 0)).attack == "B + C"


def test_settings_hold_what_an_attack_is_built_from(tiny_gpt2):
    from lit_core.lm.language_model import HuggingFaceLM

    found = plain(DFTFooler(HuggingFaceLM.from_pretrained(tiny_gpt2), max_probability=0.5))
    assert found["max_probability"] == 0.5 and found["synonyms"]["senses"] == 3
    assert found["language_model"]["name"] == "tiny-gpt2" and len(found["language_model"]["sha256"]) == 64
    assert json.loads(json.dumps(found)) == found
    detector = TextFooler(LogLikelihood(HuggingFaceLM.from_pretrained(tiny_gpt2), max_tokens=32))
    assert plain(detector)["detector"]["language_models"][0] == found["language_model"]
    assert plain(RandomPerturbation()) != plain(RandomPerturbation(min_similarity=0.6))


def test_a_detector_to_be_asked_comes_from_a_checkpoint(tmp_path, source, capsys):
    torch.save({"state_dict": {}, "global_step": 0}, tmp_path / "other.ckpt")
    asked = ["--attack.init_args.detector", "lit_detect.loading.load_detector"]
    asked += ["--attack.init_args.detector.init_args.ckpt_path", str(tmp_path / "other.ckpt")]
    assert main("--attack", "TextFooler", *asked, "--input", source, "--output", str(tmp_path / "out.jsonl")) == 2
    assert "which holds no" in capsys.readouterr().err
