"""A sample that two owners give, or that the ledger knows from another one, is credited to nobody in silence."""

import csv
import io
import json

import numpy as np
import pytest
from crossing import ask, checkpoint
from forging import forged, members_of, seal
from PIL import Image

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Query, digest


@pytest.fixture
def ranked(place, capsys):
    """Rank some answers, and return exit code, rows by owner and what was said."""

    def rank(query="query", **answers):
        capsys.readouterr()
        line = [
            "rank",
            "--query",
            place / query,
            "--answers",
            json.dumps({n: str(place / f) for n, f in answers.items()}),
        ]
        line += ["--data", place / "data/trainer", "--ckpt_path", checkpoint(place), "--output", place / "ranking"]
        code = main([*map(str, line), "--seeds", "2", "--overwrite"])
        said = capsys.readouterr()
        rows = {}
        if code != 2:
            with (place / "ranking/ranking.csv").open() as file:
                rows = {row["owner"]: (row["rank"], row["samples"]) for row in csv.DictReader(file)}
        return code, rows, said.out + said.err

    return rank


def requeried(place, name, query):
    """Return the first answer, claimed to be one to another query."""
    digest_of = digest(incoming(place / query, Query).manifest)
    return forged(place / "answer_1", place / name, change_manifest=lambda manifest: manifest.update(query=digest_of))


def relabelled(place, name):
    """Return the first answer with other labels on its samples, so that its digests and hashes are other ones."""
    members = members_of(place / "answer_1")
    labels = {key: members[key] for key in members if key.endswith(".json")}
    turned = dict(zip(labels, [*list(labels.values())[1:], next(iter(labels.values()))], strict=True))
    return forged(place / "answer_1", place / name, members=members | turned)


def test_one_answer_under_two_names(place, ranked):
    code, rows, said = ranked(alice="answer_1", mallory="answer_1", bob="answer_5")
    assert code == 3 and rows["alice"][0] == rows["mallory"][0] == "refused" and rows["bob"] == ("1", "12")
    assert "12 of its 12 samples are in the answer of mallory too" in said
    code, rows, said = ranked(mallory="answer_1", bob="answer_5")  # nor later, when the other does not show up
    assert code == 3 and rows["mallory"][0] == "refused" and "from two owners at once before" in said
    assert rows["bob"] == ("1", "12")

    book = SharingLedger(place / "data/trainer/ledger.jsonl")
    book.credit(digest(incoming(place / "answer_1", Answer).manifest), "Alice ")
    code, rows, said = ranked(alice="answer_1", mallory="answer_1")
    assert code == 3 and rows["alice"][1] == "12" and rows["mallory"][0] == "refused"
    assert "12 of its 12 samples were received from alice before" in said
    with pytest.raises(UserError, match="received no answer 12 from bob"):
        book.credit("12", "bob")


@pytest.mark.parametrize("change", ["none", "labels"])
def test_an_answer_of_another_party_is_replayed(place, ranked, change):
    assert ranked(alice="answer_1")[0] == 0
    stolen = "answer_1" if change == "none" else relabelled(place, "stolen").name
    code, rows, said = ranked(mallory=stolen, bob="answer_5")
    assert code == 3 and rows["mallory"][0] == "refused" and rows["bob"][0] == "1"
    assert "were received from alice before, and do not count" in said
    assert ranked(alice="answer_1", bob="answer_5")[:2] == (0, ranked(alice="answer_1", bob="answer_5")[1])


def test_what_two_answers_share_counts_for_neither(place, ranked):
    members = members_of(place / "answer_5")
    taken = {name: content for name, content in members_of(place / "answer_1").items() if name < "000003"}
    forged(place / "answer_5", place / "part", members=members | taken)
    code, rows, said = ranked(alice="answer_1", mallory="part")
    assert code == 3 and rows["alice"][1] == rows["mallory"][1] == "9"
    assert "3 of its 12 samples are in the answer of alice too" in said
    assert "To be noted" in (place / "ranking/report.html").read_text()


def test_copies_with_noise_and_other_labels_are_those_of_the_first_owner(place, ranked):
    assert ranked(alice="answer_1")[0] == 0
    members = members_of(relabelled(place, "stolen"))
    noise = np.random.default_rng(0).integers(-3, 4, (len(members), 8, 8))
    for number, name in enumerate(sorted(name for name in members if name.endswith(".png"))):
        pixels = np.asarray(Image.open(io.BytesIO(members[name]))).astype(int) + noise[number]
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
        members[name] = buffer.getvalue()
    seal(place / "stolen", members)
    code, rows, said = ranked(alice="answer_1", mallory="stolen")
    assert code == 3 and rows["alice"][1] == "12" and rows["mallory"][0] == "refused"
    assert "12 of its 12 samples are in the answer of alice too" in said


def test_an_answer_to_an_earlier_query(place, ranked):
    ask(place, output=str(place / "query_2"), seed=1)
    requeried(place, "again", "query_2"), requeried(place, "stolen", "query_2")
    assert ranked(alice="answer_1")[0] == 0
    code, rows, said = ranked("query_2", alice="again")
    assert "12 of its 12 samples were in an answer to an earlier query" in said and rows["alice"][1] == "12"
    code, _, said = ranked("query_2", mallory="stolen")
    assert code == 2 and "were received from alice before" in said


def test_lines_of_former_releases_are_compared_too(place, ranked):
    book = SharingLedger(place / "data/trainer/ledger.jsonl")
    received = incoming(place / "answer_1", Answer)
    from lit_valuation.exchange.ledger import Entry, named_fingerprints

    with book.locked():
        content = named_fingerprints(received.samples, received.manifest.keys)
        book.append(Entry("received", "Alice", received.digest, 12, content, {"query": received.manifest.query}))
    assert ranked(alice="answer_1")[0] == 0
    assert ranked(mallory="answer_1")[0] == 2


@pytest.mark.parametrize("twice", ["Bob", " bob", "bob/", "ｂｏｂ", "b\u200bob", ""])
def test_one_name_for_each_owner(place, ranked, twice):
    code, _, said = ranked(**{"bob": "answer_1", twice: "answer_5"})
    assert code == 2 and "answers has" in said
