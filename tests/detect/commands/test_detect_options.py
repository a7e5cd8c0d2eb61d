"""Each option of the verbs of lit-detect has an effect."""

import pytest
from detect_cases import CASES, begin
from options import Walk, options, starts

pytestmark = pytest.mark.slow  # each option runs a command


@pytest.fixture(scope="module")
def walk(tmp_path_factory, tiny_gpt2, tiny_bert):
    return Walk("lit_detect", lambda: begin(tiny_gpt2, tiny_bert), tmp_path_factory)


LEFT_OUT = ("study", "configs", "show", "board", "serve")  # the first four are walked with lit-moe


@pytest.mark.parametrize(("verb", "option"), options("lit_detect", CASES, LEFT_OUT))
def test_an_option_has_an_effect(walk, verb, option, capsys):
    walk.check(verb, option, CASES[verb], capsys)


@pytest.mark.parametrize(("verb", "option"), options("lit_detect", CASES, LEFT_OUT))
def test_nothing_is_refused_or_means_that_the_option_is_left_out(walk, verb, option, capsys):
    walk.check_empty(verb, option, CASES[verb], capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "option"), options("lit_detect", CASES, LEFT_OUT))
def test_what_cannot_be_is_a_mistake_and_named(walk, verb, option, capsys):
    walk.check_misfits(verb, option, CASES[verb], capsys)


@pytest.mark.parametrize("verb", starts(CASES))
def test_the_same_command_writes_the_same(walk, verb, capsys):
    walk.check_equal(verb, CASES[verb], capsys)
