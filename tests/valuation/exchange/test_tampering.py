"""What was altered on its way, or was never honest, is refused with the reason."""

import dataclasses
import io
import json
import tarfile

import pytest
import torch
from crossing import answer, ask, checkpoint, files

from lit_core.errors import RunFailure, UserError
from lit_core.files.outputs import command_outputs
from lit_valuation.commands.rank import rank
from lit_valuation.encoders import EncoderStamp, Identity
from lit_valuation.exchange.acceptance import accept
from lit_valuation.exchange.folder import anonymized, incoming, outgoing
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Query, digest
from lit_valuation.selectors import RandomSelector, Selection, Selector


def flip_byte(folder):
    path = folder / "000000.tar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"budget": 99}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change_canonically(folder):
    manifest = incoming(folder, Answer).manifest
    changed = dataclasses.replace(manifest, budget=manifest.budget - 1)
    from lit_valuation.exchange.manifest import to_bytes

    (folder / "manifest.json").write_bytes(to_bytes(changed))


def swap_shard(folder):
    (folder / "000000.tar").write_bytes((folder.parent / "answer_5/000000.tar").read_bytes())


def add_member(folder):
    with tarfile.open(folder / "000000.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("000099.txt"), io.BytesIO())


def add_file(folder):
    (folder / "more.txt").write_text("more")


def remove_shard(folder):
    (folder / "000000.tar").unlink()


def change_index(folder):
    index = json.loads((folder / "index.json").read_bytes())
    (folder / "index.json").write_text(json.dumps(index | {"licence": "other"}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip_byte, "000000.tar has another SHA-256"),
        (change_manifest, "was altered"),
        (change_canonically, "not the expected"),
        (swap_shard, "000000.tar has another SHA-256"),
        (add_member, "000000.tar has another SHA-256"),
        (add_file, "holds more.txt"),
        (remove_shard, "lacks 000000.tar"),
        (change_index, "another index.json"),
    ],
)
def test_altered_on_the_way(place, change, reason):
    folder = place / "answer_1"
    honest = incoming(folder, Answer)
    change(folder)
    with pytest.raises(UserError, match=reason):
        incoming(folder, Answer, honest.digest[:16])


def forge(place, samples, name="forged", keys=None, **changes):
    """Write an answer with right hashes and wrong content, as a dishonest owner could."""
    honest = incoming(place / "answer_1", Answer).manifest

    def describe(contents):
        given = keys or tuple(f"{number:06d}" for number in range(len(samples)))
        base = dataclasses.replace(honest, contents=contents, keys=given, weights=(1.0,) * len(given), disclosed=99)
        return dataclasses.replace(base, **changes)

    with outgoing(place / name, anonymized(samples), "image", "", describe):
        pass
    return place / name


def refusal(place, folder):
    asked = incoming(place / "query", Query)
    with pytest.raises(UserError) as error:
        accept(str(folder), asked, None, SharingLedger(place / "data/trainer/ledger.jsonl"))
    assert str(error.value).count(".\n") == 0
    return str(error.value)


@pytest.fixture
def own(place):
    """Samples of the owner whose answer is forged, of the classes asked for."""
    from lit_valuation.data.labelled_sets import LabelledSet

    asked = incoming(place / "query", Query)
    return LabelledSet(place / "data/owners/owner_1/train").load().of_classes(list(asked.manifest.contents.classes))


def test_more_than_the_budget(place, own):
    assert "holds 30 samples, above its budget 12" in refusal(place, forge(place, own.take(range(30))))
    assert "names a budget of 30" in refusal(place, forge(place, own.take(range(30)), "other", budget=30))


def test_a_repeated_sample(place, own):
    twice = dataclasses.replace(own.take(range(6)), x=own.x[[0, 1, 2, 3, 4, 0]], y=own.y[[0, 1, 2, 3, 4, 0]])
    assert "repeats a sample" in refusal(place, forge(place, twice))
    keys = ("000000", "000000")
    assert "names a sample twice" in refusal(place, forge(place, own.take(range(2)), "other", keys=keys))


def test_keys_that_would_fill_the_ledger(place, own):
    few = own.take(range(2))
    keys = ("000000", "0" * 1_000_000)
    assert "names a sample by another key" in refusal(place, forge(place, few, "long", keys=keys))
    keys = tuple(f"{index:06d}" for index in range(100_000))
    assert "names other samples than it holds" in refusal(place, forge(place, few, "many", keys=keys))


def test_other_classes_encoder_query_and_weights(place, own):
    few = own.take(range(4))
    foreign = dataclasses.replace(few, classes=tuple(f"wolf {name}" for name in few.classes))
    assert "was not asked for" in refusal(place, forge(place, foreign, "classes"))
    assert "answers another query" in refusal(place, forge(place, few, "query_", query="0" * 64))
    assert "negative weight" in refusal(place, forge(place, few, "weights", weights=(-1.0,) * 4))
    assert "less than it holds" in refusal(place, forge(place, few, "disclosed", disclosed=0))

    ask(place, output=str(place / "asks"), encoder=Identity())
    asked = incoming(place / "asks", Query)
    choice = incoming(place / "answer_1", Answer).manifest.choice
    other = dataclasses.replace(choice, encoder=EncoderStamp("Identity", "1" * 64))
    forged = forge(place, few, "encoder", query=asked.digest, choice=other)
    with pytest.raises(UserError, match="another name or hash"):
        accept(str(forged), asked, None, SharingLedger(place / "data/trainer/ledger.jsonl"))


def ranked(place, **changes):
    given = {"answers": {"echo": str(place / "echo")}, "data": str(place / "data/trainer"), "seeds": 2}
    rank(str(place / "query"), ckpt_path=checkpoint(place), output=str(place / "ranking"), **given | changes)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_echoed_queries(place, noise):
    queries = incoming(place / "query", Query).samples.take(range(6))
    change = noise * torch.randn(queries.x.shape, generator=torch.Generator().manual_seed(0))
    x = queries.x if not noise else (queries.inputs() * 0.9 + change).mul(255).clamp(0, 255).to(torch.uint8)
    forge(place, dataclasses.replace(queries, x=x), "echo")
    kind = "6 equal, 0 nearly" if not noise else "0 equal, 6 nearly"
    with pytest.raises(UserError, match=rf"6 of its 6 samples are yours, and do not count: 6 of the queries \({kind}"):
        ranked(place)
    assert not (place / "ranking").exists()


def test_refused_and_withdrawn_answers_stand_in_the_table(place, capsys):
    queries = incoming(place / "query", Query).samples.take(range(6))
    forge(place, queries, "echo")
    answers = {"honest": str(place / "answer_1"), "other": str(place / "answer_5"), "echo": str(place / "echo")}
    ranked(place, answers=answers)
    table = (place / "ranking/ranking.csv").read_text()
    assert table.count("refused,echo") == 1 and ",honest," in table
    assert "6 of its 6 samples are yours" in (place / "ranking/report.html").read_text()

    book = SharingLedger(place / "data/trainer/ledger.jsonl")
    book.withdraw(digest(incoming(place / "answer_5", Answer).manifest), "on request")
    before = files(place / "ranking")
    with pytest.raises(UserError, match="ranking, which holds the results of other answers; give another folder, or"):
        ranked(place, answers=answers)
    assert files(place / "ranking") == before
    with command_outputs(overwrite=True):
        ranked(place, answers=answers)
    assert "refused,other" in (place / "ranking/ranking.csv").read_text()
    assert "was withdrawn by its owner" in capsys.readouterr().out


def test_the_limit_counts_what_was_given_before(place):
    given = {"limit": 20, "encoder": None}
    with pytest.raises(UserError, match="has been given 12 of your samples and would then have 2"):
        answer(place, 1, output=str(place / "more"), selector=RandomSelector(), **given)
    assert not (place / "more").exists()
    answer(place, 1, output=str(place / "again"), **given | {"encoder": Identity()})  # the same ones
    assert incoming(place / "again", Answer).manifest.disclosed == 12


def test_a_dry_run_writes_a_sheet_and_nothing_else(place):
    before = files(place)
    ask(place, output=str(place / "dry"), dry_run=True)
    answer(place, 1, output=str(place / "dry_answer"), dry_run=True)
    after = files(place)
    assert set(after) - set(before) == {"dry.png", "dry_answer.png"}
    assert {name: after[name] for name in before} == before
    with pytest.raises(UserError, match=r"dry\.png, which exists already"):
        ask(place, output=str(place / "dry"), dry_run=True)


def test_withheld_samples_stay(place):
    shown = SharingLedger(place / "data/owners/owner_1/ledger.jsonl").entries()[-1].samples
    kept = next(iter(shown))
    answer(place, 1, output=str(place / "less"), withhold=[kept])
    entry = SharingLedger(place / "data/owners/owner_1/ledger.jsonl").entries()[-1]
    assert kept not in entry.samples and entry.notes["withheld"] == [kept]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget": 13}, "budget is 13, but the query allows 1 to 12"),
        ({"budget": 0}, "budget is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"encoder": None}, "give --encoder EfficientNetLite0 or another"),
        ({"expect_digest": "abcdefabcdef"}, "not the expected abcdefabcdef"),
        ({"withhold": ["nobody"]}, "withhold names nobody"),
        ({"output": "query"}, "exists already"),
    ],
)
def test_bad_input_of_select(place, changes, reason, monkeypatch):
    monkeypatch.chdir(place)
    before = files(place)
    with pytest.raises(UserError, match=reason):
        answer(place, 1, **{"output": "new"} | changes)
    assert files(place) == before


def test_an_owner_without_the_classes(place):
    ask(place, output=str(place / "eights"), classes=["8"])
    from lit_valuation.data.labelled_sets import LabelledSet, write_labelled

    mine = LabelledSet(place / "data/owners/owner_1/train").load()
    others = mine.of_classes([name for name in mine.classes if name != "8"])
    write_labelled(place / "poor/train", others, source="", split="train", licence="", origin="")
    with pytest.raises(UserError, match="no sample of the classes asked for"):
        answer(place, 1, query=str(place / "eights"), data=str(place / "poor"), output=str(place / "none"))


class Greedy(Selector):
    """A selector that somebody wrote without care."""

    needs = frozenset()

    def __init__(self, indices):
        self.indices = torch.tensor(indices)

    def select(self, pool, queries, budget, seed=0):
        return Selection(self.indices, torch.ones(len(self.indices)))


@pytest.mark.parametrize("indices", [range(13), [1, 2, 1]])
def test_no_selector_gets_past_the_budget(place, indices):
    with pytest.raises(RunFailure, match=r"Greedy chose .* nothing is written"):
        answer(place, 1, output=str(place / "all"), selector=Greedy(list(indices)), encoder=None, limit=1000)
    assert not (place / "all").exists()
