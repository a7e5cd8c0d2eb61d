"""Each verb of lit-detect, killed where it changes a file, or with a full disk there."""

import json
from pathlib import Path

import pytest
from detect_cases import CASES, FIT, begin
from verb_kills import Place, Row, Walk, parameters, reading_rows, verbs_of

ENCODER = {
    "class_path": "lit_detect.detectors.EncoderDetector",
    "init_args": {"model": "scratch-1x32", "max_tokens": 48},
}
DETECTION = {
    "function": "lit_detect.study.experiment",
    "arguments": {
        "pairs": {
            "class_path": "lit_detect.formats.LitShiftJSONL",
            "init_args": {"path": "study.jsonl", "name": "pairs"},
        },
        **{"trained_on": "shuffled", "priming": "24", "recipe": {"epochs": 1, "learning_rate": 1e-3}, "train_texts": 8},
        "detectors": {"Encoder": ENCODER},
        "attacks": {"Homoglyph": {"class_path": "lit_detect.attacks.Homoglyph"}},
        "attacked_texts": 2,
    },
    "vary": {"detector": ["Encoder"]},
}
STUDY = {
    **{"name": "one", "grids": {"detection": DETECTION}, "sizes": {"smoke": {"seeds": [0, 1]}}},
    "tables": {"Texts": {"by": ["condition"], "metrics": ["auroc"]}},
}
LOGGED = {**FIT, "trainer": {**FIT["trainer"], "logger": None, "log_every_n_steps": 1, "limit_val_batches": 1}}
READING = reading_rows("runs/detect/one/checkpoints/last.ckpt")
ROWS = {name: Row(case.base) for name, case in CASES.items()} | {
    **READING,
    "fit": Row(LOGGED, ("--run", "new")),
    "predict": Row(flags=(*READING["predict"].flags, "--data.predict", "pairs.jsonl", "--data.on_error", "skip")),
    **{verb: Row(CASES[verb].base, ("--on_error", "skip")) for verb in ("calibrate", "prepare")},
    "serve": Row(flags=("--port", "70000"), writes=False, code=2),  # it writes nothing, and would not end
    "study": Row(STUDY, most=4),
}


def begin_study():
    """Put in the working directory texts whose decoding and priming are known."""
    rows = [json.loads(line) for line in Path("others.jsonl").read_text().splitlines()]
    for row in rows:
        known = {"priming_tokens": 24}
        row |= {"decoding": {"name": "shuffled", **known}} if row["label"] else {"meta": known}
    Path("study.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_verb_has_a_row():
    assert sorted(ROWS) == sorted(verbs_of("lit_detect"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_gpt2, tiny_bert):
    return Place("lit_detect", lambda: (begin(tiny_gpt2, tiny_bert), begin_study()), tmp_path_factory)


@pytest.mark.parametrize(("verb", "how"), parameters(ROWS))
def test_a_verb_that_was_ended_anywhere_ends_the_same_when_it_is_given_again(place, verb, how, record_property):
    record_property(how, Walk(place, verb, ROWS[verb]).check(how))
