"""What `Attack` promises, checked of every attack that has a config, whatever it is called."""

import json
import random

import numpy as np
import pytest
import torch
from stand_ins import LEARNED, cases
from tiny_models import prose

from lit_core.errors import UserError
from lit_detect.attacks import Attack, Attacked, apply_edits
from lit_detect.attacks.base import checked_fraction
from lit_detect.records import Edit

KIND, CONFIGS = cases(Attack)
TEXTS = [
    "Emma met Mr. Knightley near Highbury in 1815. The color of the sky was grey, and Emma thought of her father, "
    "because the children definitely believed that their neighbor would receive 12 letters, 3 boxes and 40 birds.\n\n"
    "A happy child walked quickly to the old house and found a large box near the door. It was strange. NATO left.",
    " ".join(LEARNED),
    "  Emma saw Anna , twice; Anna saw Emma — naïvely…  ",
    "house",
    "Emma",
    "",
    " \n",
    "😀",
    "👩‍👩‍👧 It rained, 😀 and \u0130stanbul was stra\u00dfe \ufb01ne. \u200b The\u00a0end",
]


@pytest.fixture(scope="module", params=CONFIGS)
def build(request, stand_ins):
    return lambda: stand_ins.build(KIND, request.param, lambda attack: attack("It rained.", 0))


@pytest.fixture(scope="module")
def attack(build):
    return build()


@pytest.fixture(scope="module")
def results(attack):
    return attack.attack_many(TEXTS, 3)


def test_equal_texts_and_seeds_give_equal_results_whatever_came_before(build, attack, results):
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(1)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert [attack(text, 3) for text in reversed(TEXTS)] == results[::-1]
    assert build().attack_many(TEXTS, 3) == results
    assert torch.equal(torch.get_rng_state(), state[0]), "it draws from torch's global generator"
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:], "it draws from a global generator"


def test_the_edits_of_the_original_give_the_attacked_text(results):
    for text, result in zip(TEXTS, results, strict=True):
        assert apply_edits(text, result.edits) == result.text
        end = 0
        for edit in result.edits:
            assert end <= edit.start <= edit.end <= len(text), "edits must be sorted and must not overlap"
            assert edit.before == text[edit.start : edit.end]
            end = edit.end


def test_it_changes_a_text_and_leaves_an_empty_one(attack, results):
    longer = [text[:1_500] for text in prose()[:2]]
    attacked = [result.text for result in (*results, *attack.attack_many(longer, 3))]
    assert attacked != TEXTS + longer, "add a text to TEXTS that the attack changes"
    assert results[TEXTS.index("")].text == "" and results[TEXTS.index("")].edits == ()


def test_what_it_says_about_a_text_is_plain(attack, results):
    assert attack.name.startswith(type(attack).__name__)
    for result in results:
        assert json.loads(json.dumps(dict(result.meta), allow_nan=False)) == result.meta
        assert type(result.queries) is int and result.queries >= 0
        assert type(result.edits) is tuple


@pytest.mark.parametrize(
    ("spans", "wrong"),
    [
        ([(4, 5), (0, 1)], "from 0 to 1 .* ends at 5"),
        ([(0, 3), (2, 5)], "from 2 to 5 .* ends at 3"),
        ([(3, 1)], "3 to 1"),
    ],
)
def test_edits_that_overlap_or_are_out_of_order_are_refused(spans, wrong):
    edits = tuple(Edit(start, end, "alpha"[start:end], "x") for start, end in spans)
    for make in (lambda: Attacked("x", edits), lambda: apply_edits("alpha", edits)):
        with pytest.raises(ValueError, match=wrong):
            make()
    Attacked("xx alpha", (Edit(0, 0, "", "x"), Edit(0, 0, "", "x "), Edit(0, 1, "a", "a")))


def test_an_attack_has_the_name_of_its_class_by_default():
    class Nothing(Attack):
        def __call__(self, text, seed):
            return Attacked(text, ())

    class More(Nothing):
        pass

    assert (Nothing().name, More().name) == ("Nothing", "More")


def test_the_refusal_of_a_fraction_names_its_argument():
    with pytest.raises(UserError, match=r"^share is 1\.5, but must be from 0 to 1"):
        checked_fraction("share", 1.5)
