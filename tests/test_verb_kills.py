"""A few of the ends of a cheap verb; `make kills` takes more, of all verbs, from the packages' folders of commands."""

import json
from pathlib import Path

import pytest
from verb_kills import Place, Row, Walk, parameters

TEXTS = {"attack": "Homoglyph", "input": "texts.jsonl", "output": "attacked.jsonl"}
ROWS = {"attack": Row(TEXTS)}


def begin():
    rows = [{"id": f"{number}", "text": "It is a truth universally acknowledged.", "label": 1} for number in range(3)]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place("lit_detect", begin, tmp_path_factory)


@pytest.mark.parametrize(("verb", "how"), parameters(ROWS, full_walk=False))
def test_a_verb_that_was_ended_ends_the_same_when_it_is_given_again(place, verb, how):
    assert Walk(place, verb, ROWS[verb]).check(how, most=4) > 0
