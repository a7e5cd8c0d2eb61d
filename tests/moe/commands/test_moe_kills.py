"""Each verb of lit-moe, killed where it changes a file, or with a full disk there."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from moe_cases import CASES, GRID, OTHERS, TEXTS, begin
from verb_kills import Place, Row, Walk, parameters, reading_rows, verbs_of

from lit_moe.cli import main

FIT = {
    "data": {
        "class_path": "lit_moe.TokenDataModule",
        "init_args": {
            **{"root": "prepared", "sources": {"texts": 1}, "replay": {"others": 1}, "sequence_length": 16},
            **{"global_batch_size": 2, "micro_batch_size": 2, "validation_samples": 2, "test_samples": 2},
        },
    },
    "model": {
        "class_path": "lit_moe.MoELanguageModel",
        "init_args": {
            "decoder": {
                **{"feed_forward": {"n_experts": 2, "top_k": 1, "expert_width": 8}, "n_layers": 1, "d_model": 8},
                **{"n_heads": 1, "d_ff": 8},
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        },
    },
    "trainer": {
        **{"max_steps": 4, "max_epochs": -1, "log_every_n_steps": 1, "val_check_interval": 2, "accelerator": "cpu"},
        **{"devices": 1, "check_val_every_n_epoch": None, "enable_progress_bar": False, "enable_model_summary": False},
        "callbacks": [
            {"class_path": "lit_moe.ReplayMixing", "init_args": {"fraction": 0.3}},
            {"class_path": "lit_core.callbacks.RunCheckpoint", "init_args": {"every_n_train_steps": 2}},
        ],
    },
}
CONTINUAL = {
    "function": "lit_moe.study.experiment",
    "arguments": {
        "models": {"switch": {"feed_forward": "switch", "router": {"class_path": "lit_moe.nn.SinkhornRouter"}}},
        **{"old": ["texts"], "shifts": {"other": ["others"]}, "corpora": [TEXTS, OTHERS], "vocab_size": 280},
        "decoder": {"n_layers": 1, "d_model": 8, "n_heads": 1, "d_ff": 8, "tie_embeddings": True},
        "recipe": {"sequence_length": 16, "batch_size": 2, "learning_rate": 0.01},
        **{"pretrain_steps": 8, "steps": 4, "window": 2, "test_samples": 2},
    },
    "vary": {"model": ["switch"], "schedule": ["infinite"], "replay": [0.0, 0.3], "shift": ["other"]},
}
STUDY = {
    **{"name": "one", "grids": {"all": GRID, "continual": CONTINUAL}, "sizes": {"smoke": {"seeds": [0]}}},
    "tables": {"Accuracy": {"by": ["share"], "metrics": ["accuracy"]}},
    "figures": {"Curve": {"x": "share", "by": "grid", "metrics": ["accuracy"]}},
}
READING = reading_rows("runs/moe/trained/checkpoints/last.ckpt")
ROWS = {name: Row(case.base) for name, case in CASES.items()} | {
    **READING,
    "fit": Row(FIT, ("--run", "one")),
    **{name: Row(CASES[name].base, most=None) for name in ("generate", "import")},
    "doctor": Row(CASES["doctor"].base, most=4),
    "prepare": Row(CASES["prepare"].base, most=40),
    "study": Row(STUDY, most=4),
    "predict": replace(READING["predict"], writes=False, code=2),
    "plan": Row(FIT, writes=False),
}


def begin_with_a_run():
    """Put in the working directory what all verbs need, with a trained model."""
    begin()
    Path("fit.yaml").write_text(yaml.safe_dump(FIT))
    assert main(["fit", "--config", "fit.yaml", "--run", "trained"]) == 0


def test_each_verb_has_a_row():
    assert sorted(ROWS) == sorted(verbs_of("lit_moe"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place("lit_moe", begin_with_a_run, tmp_path_factory)


@pytest.mark.parametrize(("verb", "how"), parameters(ROWS))
def test_a_verb_that_was_ended_anywhere_ends_the_same_when_it_is_given_again(place, verb, how, record_property):
    record_property(how, Walk(place, verb, ROWS[verb]).check(how))
