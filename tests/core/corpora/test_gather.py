import re

import pytest

from lit_core.corpora import Austen, Corpus, Document
from lit_core.corpora.gather import Gathered, divide
from lit_core.errors import UserError


class Given(Corpus):
    name, licence, origin, language = "given", "none", "the test", "en"

    def __init__(self, documents):
        self.given = documents

    def documents(self):
        yield from self.given

    def facts(self):
        return {}


def gather(documents, folder):
    return Gathered.make(Given(documents), folder, lambda size: None)


def split(gathered, **changes):
    arguments = {"val_fraction": 0.05, "test_fraction": 0.05, "max_bytes": None, "seed": 0}
    return divide(gathered, "given", **{**arguments, **changes})


def size(spans):
    return sum(span.size for span in spans)


@pytest.fixture(scope="module")
def austen(tmp_path_factory):
    return Gathered.make(Austen(), tmp_path_factory.mktemp("austen"), lambda size: None)


def test_gathered_text_is_the_documents_one_after_the_other(tmp_path, austen):
    documents = list(Austen().documents())
    assert austen.path.read_bytes() == "".join(document.text for document in documents).encode()
    assert austen.ids == [document.id for document in documents]
    again = Gathered.make(Given([]), austen.path.parent, lambda size: None)  # read, not made again
    assert again == austen


def test_duplicates_and_empty_documents_are_left_out(tmp_path):
    texts = ["a text", " \n", "another", "a text"]
    gathered = gather([Document(str(number), text) for number, text in enumerate(texts)], tmp_path)
    assert gathered.ids == ["0", "2"] and gathered.duplicates == 1


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "given is empty: there is no document with text in the test"),
        ([Document("a", " ")], "given is empty"),
        ([Document("a", "x"), Document("a", "y")], "two documents named a"),
        ([Document("a", "\ud800")], "The document a of given is not Unicode text"),
    ],
)
def test_bad_corpora_are_refused_and_leave_nothing(documents, message, tmp_path):
    with pytest.raises(UserError, match=message):
        gather(documents, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_document_is_on_one_side_and_every_novel_on_all(austen):
    splits = split(austen)
    spans = [span for spans in splits.values() for span in spans]
    assert sorted(spans, key=lambda span: span.offset) == austen.spans
    novel = dict(zip(austen.spans, austen.groups, strict=True))
    for name, spans in splits.items():
        assert {novel[span] for span in spans} == set(austen.groups), name
        assert abs(size(spans) / size(austen.spans) - (0.9 if name == "train" else 0.05)) < 0.01


def test_any_beginning_has_the_novels_in_proportion(austen):
    novel = dict(zip(austen.spans, austen.groups, strict=True))
    train = split(austen)["train"]
    share = {group: austen.groups.count(group) / len(austen.groups) for group in set(austen.groups)}
    for count in (30, 100, 200):
        for group, expected in share.items():
            assert abs(sum(novel[span] == group for span in train[:count]) / count - expected) < 0.06


def test_another_seed_divides_otherwise_and_the_same_seed_alike(austen):
    assert split(austen) == split(austen)
    assert set(split(austen)["val"]) != set(split(austen, seed=1)["val"])


def test_a_limit_cuts_each_split_to_its_share_and_moves_no_document(austen):
    whole, cut = split(austen), split(austen, max_bytes=400_000)
    for name, share in (("train", 0.9), ("val", 0.05), ("test", 0.05)):
        # The last document is cut at a line break, and a line is short.
        assert share * 400_000 - 100 < size(cut[name]) <= share * 400_000
        assert [span.offset for span in cut[name]] == [span.offset for span in whole[name]][: len(cut[name])]
        last = cut[name][-1]
        assert austen.path.read_bytes()[last.offset + last.size - 1 :][:1] == b"\n"


def test_documents_without_line_breaks_are_not_torn(tmp_path):
    gathered = gather([Document(str(number), f"größe {number} " * 100) for number in range(10)], tmp_path)
    for spans in split(gathered, max_bytes=50).values():
        assert len(spans) == 1 and spans[0].size > 50


def test_translations_are_divided_alike(tmp_path):
    one = gather([Document(f"s{number}", f"{number} text") for number in range(100)], tmp_path / "one")
    other = gather([Document(f"s{number}", f"{number} Text länger") for number in range(100)], tmp_path / "other")
    ids = [
        {number for number, span in enumerate(gathered.spans) if span in split(gathered)["test"]}
        for gathered in (one, other)
    ]
    assert ids[0] == ids[1]


def test_small_groups_are_divided_together(tmp_path):
    documents = [Document(str(number), f"text {number}", group=str(number // 2)) for number in range(40)]
    splits = split(gather(documents, tmp_path), val_fraction=0.25, test_fraction=0.25)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [20, 10, 10]


@pytest.mark.parametrize("seed", range(5))
def test_one_large_document_is_not_what_is_evaluated_on(seed, tmp_path):
    documents = [Document(str(number), f"{number:04} " * 20) for number in range(100)]
    splits = split(gather([*documents, Document("large", "large " * 300)], tmp_path), seed=seed)
    assert max(span.size for span in splits["train"]) == 1800
    assert all(len(splits[name]) >= 4 for name in ("val", "test"))


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_documents_give_every_split_one(count, tmp_path):
    documents = [
        Document(str(number), "x" * 10 ** (number % 5) + str(number), group=str(number % 2)) for number in range(count)
    ]
    splits = split(gather(documents, tmp_path))
    assert all(splits.values()) and sum(map(len, splits.values())) == count


def test_too_few_documents_for_the_splits_are_refused(tmp_path):
    gathered = gather([Document("0", "one"), Document("1", "two")], tmp_path)
    with pytest.raises(UserError, match=re.escape("given has 2 document(s), but train, val, test need one each")):
        split(gathered)
    assert set(split(gathered, test_fraction=0)) == {"train", "val"}
    assert set(split(gathered, test_fraction=0, val_fraction=0)) == {"train"}
