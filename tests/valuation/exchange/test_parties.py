"""One party has one name, so that no spelling of it gets a limit of its own."""

import pytest
import regex
from crossing import answer, ask, files

from lit_core.errors import UserError
from lit_valuation.commands.rank import _check_names
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.parties import canonical_name
from lit_valuation.selectors import RandomSelector

SPELLINGS = ["Trainer", " trainer", "trainer ", "trainer.", "trainer/", "./trainer", "ｔｒａｉｎｅｒ", "tra\u00adiner"]


def others(place, **changes):
    """Answer with samples that were not chosen before."""
    answer(place, 1, **{"selector": RandomSelector(), "encoder": None, "output": str(place / "more")} | changes)


@pytest.mark.parametrize("name", [name for name in SPELLINGS if name.isprintable()])
def test_another_spelling_has_the_same_limit(place, name):
    with pytest.raises(UserError, match="trainer has been given 12 of your samples"):
        others(place, to=name, limit=12)
    answer(place, 1, to=name, output=str(place / "again"))
    entries = SharingLedger(place / "data/owners/owner_1/ledger.jsonl").entries()
    assert [entry.counterparty for entry in entries] == ["trainer", "trainer"]


def test_a_name_with_characters_that_are_not_seen_is_the_same_name():
    unseen = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    found = [char for char in map(chr, range(0x110000)) if unseen.match(char)]
    assert len(found) > 4000 and {canonical_name(f"tra{char}iner") for char in found} == {"trainer"}
    assert canonical_name("e\u034f\u0301") == canonical_name("é") != canonical_name("e")


@pytest.mark.parametrize("char", "\ufe0f\u034f\u115f\u3164\u2800")
def test_two_answers_of_a_ranking_are_not_of_one_name(char):
    with pytest.raises(UserError, match="names 'alice' again"):
        _check_names({"alice": "a", f"al{char}ice": "b"}, {})
    assert _check_names({"alice": "a"}, {f"alice{char}": "0" * 12}) == {"alice": "0" * 12}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "to has the name ''"),
        (" ./ ", "to has the name"),
        ("tra\u00adiner", "printable"),
        ("tra\x1b[2Jiner", "printable"),
        ("trainr", 'does not know; it knows trainer. Did you mean "trainer"'),
        ("тrainer", "--new_party true"),
    ],
)
def test_a_name_that_is_none_or_new(place, name, reason):
    before = files(place)
    with pytest.raises(UserError) as error:
        others(place, to=name)
    assert reason in str(error.value) and str(error.value).isprintable() and files(place) == before


def test_a_new_party_has_a_limit_of_its_own_and_a_share_of_the_total(place):
    with pytest.raises(UserError, match="total_limit is 15, but all parties together have been given 12"):
        others(place, to="second", new_party=True, limit=12, total_limit=15)
    others(place, to="second", new_party=True, limit=12, budget=1, total_limit=13)
    with pytest.raises(UserError, match="total_limit is 13, but all parties"):  # the one that was given last
        others(place, to="third", new_party=True, limit=12, output=str(place / "third"))
    answer(place, 1, to="Second", output=str(place / "same"), total_limit=25)  # those that the first one knows


def test_the_trainer_names_each_owner_once(place):
    for names, reason in (
        (["alice", "Alice"], "again"),
        (["bob", "carol"], "does not know"),
        ([""], "to has the name"),
    ):
        with pytest.raises(UserError, match=reason):
            ask(place, to=names, output=str(place / "second"))
    ask(place, to=["ALICE", "carol"], output=str(place / "second"), new_party=True)
    entries = SharingLedger(place / "data/trainer/ledger.jsonl").entries()
    assert [entry.counterparty for entry in entries] == ["alice", "bob", "alice", "carol"]


def test_the_trainer_has_limits_too(place):
    ask(place, output=str(place / "same"), limit=16, total_limit=16)  # what both have already
    more = {"output": str(place / "more"), "seed": 1}
    for limits, reason in (
        ({"limit": 20}, "limit is 20, but alice has been given 16"),
        ({}, "total_limit is 16, but all"),
    ):
        before = files(place)
        with pytest.raises(UserError, match=f"{reason}.*lower per_class|{reason}.*raise it"):
            ask(place, **more | limits)
        assert files(place) == before
    ask(place, **more | {"total_limit": 60})


def test_spellings_of_former_releases_are_one_party(place):
    from lit_valuation.exchange.ledger import Entry

    book = SharingLedger(place / "data/owners/owner_1/ledger.jsonl")
    with book.locked():
        book.append(Entry("answer", "Trainer ", "d", 12, {"x": "1" * 64}))
    assert len(book.disclosed("trainer")) == 13


def test_a_query_that_another_trainer_hands_on_is_noticed(place, capsys):
    others(place, to="second", new_party=True, dry_run=True)
    assert "You answered this very query for trainer before: make sure that second asks it." in capsys.readouterr().out
    answer(place, 1, to="TRAINER", output=str(place / "again"))
    assert "this very query" not in capsys.readouterr().out
