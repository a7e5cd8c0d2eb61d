"""Each verb of lit-valuation, killed where it changes a file, or with a full disk there."""

import pytest
from valuation_cases import CASES, FIT, begin
from verb_kills import Place, Row, Walk, parameters, reading_rows, verbs_of

EXCHANGE = {
    "function": "lit_valuation.study.simulate",
    "arguments": {
        "source": {"class_path": "lit_valuation.sources.Digits"},
        "planting": {
            "class_path": "lit_valuation.data.PlantedBackground",
            "init_args": {"classes": ["3", "8"], "hard_fraction": 0.4},
        },
        "division": {"train": 40, "val": 80, "test": 20, "owner_samples": 20},
        "network": {"class_path": "lit_valuation.nn.MLP", "init_args": {"hidden": [4]}},
        "encoder": {"class_path": "lit_valuation.encoders.Identity"},
        "selectors": {"Random": {"class_path": "lit_valuation.selectors.RandomSelector"}},
        **{"budgets": [4], "queries_per_class": 2, "steps": 4},
    },
}
STUDY = {
    **{"name": "one", "grids": {"exchange": EXCHANGE}, "sizes": {"smoke": {"seeds": [0, 1]}}, "output": "page.md"},
    "tables": {"Owners": {"by": ["owner"], "metrics": ["useful", "test"]}},
    "figures": {"Curves": {"x": "budget", "by": "selector", "metrics": ["test"]}},
}
LOGGED = {**FIT, "trainer": {**FIT["trainer"], "logger": None, "log_every_n_steps": 1, "limit_val_batches": 1}}
ROWS = {name: Row(case.base) for name, case in CASES.items()} | {
    **reading_rows("runs/valuation/trainer/checkpoints/last.ckpt"),
    **{name: Row(CASES[name].base, most=None) for name in ("query", "select")},
    "fit": Row(LOGGED, ("--run", "one")),
    "study": Row(STUDY, most=4),
}


def test_each_verb_has_a_row():
    assert sorted(ROWS) == sorted(verbs_of("lit_valuation"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place("lit_valuation", begin, tmp_path_factory)


@pytest.mark.parametrize(("verb", "how"), parameters(ROWS))
def test_a_verb_that_was_ended_anywhere_ends_the_same_when_it_is_given_again(place, verb, how, record_property):
    record_property(how, Walk(place, verb, ROWS[verb]).check(how))
