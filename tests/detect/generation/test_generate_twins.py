import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lit_core.corpora import Austen
from lit_core.errors import UserError
from lit_core.lightning.checksums import weights_sha256
from lit_core.lm.language_model import HuggingFaceLM
from lit_detect.formats.litshift import read_records
from lit_detect.generation.generate import Decoding, generate, with_prefix
from lit_detect.generation.leak import leak_test
from lit_detect.generation.passages import clean, passages, split_of

OPTIONS = dict(
    corpora=[Austen()],
    name="tiny",
    decodings=[Decoding("pure"), Decoding("cold", temperature=0.5, top_k=20, repetition_penalty=1.2)],
    priming_tokens=[4, 9],
    train=12,
    test=6,
    words=6,
    max_new_tokens=40,
    batch_size=8,
)


@pytest.fixture(autouse=True, scope="module")
def chosen_once():
    """Each call reads all chapters and cleans them, which takes longer than what is tested."""
    chosen = {}

    def once(corpus, *arguments):
        key = repr((corpus.describe(), arguments[1:]))  # all but the tokenizer, which is that of `lm`
        if key not in chosen:
            chosen[key] = passages(corpus, *arguments)
        return chosen[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_detect.generation.generate.passages", once)
        yield


@pytest.fixture(scope="module")
def lm(tiny_gpt2):
    return HuggingFaceLM.from_pretrained(tiny_gpt2)


@pytest.fixture(scope="module")
def whole(lm, tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "texts.jsonl"
    generate(output=str(path), language_model=lm, **OPTIONS)
    return path


def test_records_are_complete(whole, lm):
    records = list(read_records(whole))
    human = [record for record in records if record.label == 0]
    machine = [record for record in records if record.label == 1]
    assert len(human) == 2 * 18 and len(machine) > 0.8 * 4 * 18
    assert len({record.id for record in records}) == len(records)
    assert not any(record.decoding for record in human)
    twins = {(record.meta["passage"], record.meta["priming_tokens"]): record for record in human}
    for record in records:
        assert len(record.text.split(" ")) == 6 and clean(record.text) == record.text
        assert record.split == split_of("austen", record.pair_id.removeprefix("austen/"))
        twin = twins[record.meta["passage"], record.meta["priming_tokens"]]
        assert record.meta["prefix"].startswith(twin.meta["prefix"].rpartition(" ")[0])  # the last word may go on
        assert record.pair_id == twin.pair_id
        assert with_prefix(record) == f"{record.meta['prefix']} {record.text}"
    assert {record.source for record in human} == {"human"} and human[0].meta["licence"] == "public domain"
    settings = {json.dumps(record.decoding, sort_keys=True) for record in machine}
    assert len(settings) == 4
    assert all(record.decoding["priming_tokens"] == record.meta["priming_tokens"] for record in machine)
    cold = next(record for record in machine if record.decoding["name"] == "cold")
    assert cold.decoding | {"priming_tokens": 0} == {
        "name": "cold",
        "temperature": 0.5,
        "top_k": 20,
        "top_p": None,
        "repetition_penalty": 1.2,
        "priming_tokens": 0,
        "seed": 0,
        "max_new_tokens": 40,
    }
    assert cold.meta["generator_sha256"] == weights_sha256(lm.module)


def test_a_killed_run_goes_on_and_ends_with_the_same_file(whole, lm, tmp_path, monkeypatch):
    path = tmp_path / "texts.jsonl"
    calls = []
    former = lm.generate

    def stopping(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return former(*arguments, **options)

    monkeypatch.setattr(lm, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        generate(output=str(path), language_model=lm, **OPTIONS)
    assert not path.exists()
    (tmp_path / ".texts.jsonl.parts" / ".000009.json.xyz.litshift.tmp").write_text("torn")
    with pytest.raises(UserError, match="was begun with seed 0, and now it is 1"):
        generate(output=str(path), language_model=lm, seed=1, **OPTIONS)
    generate(output=str(path), language_model=lm, **OPTIONS)
    assert path.read_bytes() == whole.read_bytes()
    assert len(calls) == 5 + 12 - 4  # four of twelve pieces were there
    assert {file.name for file in tmp_path.iterdir()} == {"texts.jsonl", "texts.jsonl.run.json"}


@pytest.mark.slow
def test_killed_on_the_command_line_with_two_processes(whole, tiny_gpt2, tmp_path):
    config = tmp_path / "generate.json"
    options = OPTIONS | {
        "corpora": [{"class_path": "lit_core.corpora.Austen"}],
        "decodings": [{"name": "pure"}, {"name": "cold", "temperature": 0.5, "top_k": 20, "repetition_penalty": 1.2}],
        "language_model": {"class_path": "lit_core.lm.HuggingFaceLM.from_pretrained", "init_args": {"name": tiny_gpt2}},
        "output": str(tmp_path / "texts.jsonl"),
    }
    config.write_text(json.dumps(options))
    command = ["generate", "--config", str(config), "--trainer.accelerator", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "lit_detect", *command], cwd=tmp_path, start_new_session=True)
    parts = tmp_path / ".texts.jsonl.parts"
    deadline = time.monotonic() + 120
    while not list(parts.glob("0*.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "texts.jsonl").exists() or not parts.exists()
    done = subprocess.run(
        [sys.executable, "-m", "lit_detect", *command, "--trainer.devices", "2"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "texts.jsonl").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("priming_tokens", [], r"priming_tokens is \[\], but must be one or more, all different"),
        ("decodings", [Decoding("a"), Decoding("a")], "decodings is .*, but must be one or more, all different"),
        ("train", -1, "train is -1"),
        ("max_new_tokens", 6, "max_new_tokens is 6, but must be more than the 6 words"),
        ("output", "texts.csv", "must end in .jsonl"),
    ],
)
def test_refusals(lm, tmp_path, option, value, message):
    options = {"output": str(tmp_path / "texts.jsonl"), "language_model": lm, **OPTIONS, option: value}
    with pytest.raises(UserError, match=message):
        generate(**options)


def test_refuses_to_overwrite(whole, lm):
    with pytest.raises(UserError, match="exists already"):
        generate(output=str(whole), language_model=lm, **OPTIONS)


def test_leak_is_tested_on_the_pairs_of_one_setting(whole):
    records = list(read_records(whole))
    found = leak_test(records, ("tiny", "cold", 4))
    cold = {r.pair_id for r in records if r.decoding == r.decoding | {"name": "cold", "priming_tokens": 4}}
    assert found["texts"].mean > 0.8 and found["shapes"].n == found["texts"].n == 2 * len(cold)
