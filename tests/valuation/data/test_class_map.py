"""Class maps: each own name leads to one shared name, and what the map does not know is refused."""

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.data.class_map import read_class_map, with_shared_names
from lit_valuation.samples import Samples


def samples(*labels, classes=None):
    classes = classes or tuple(sorted(set(labels)))
    y = torch.tensor([classes.index(label) for label in labels])
    return Samples(torch.arange(len(labels)).float()[:, None], y, classes, tuple(f"k{i}" for i in range(len(labels))))


def mapped(tmp_path, lines, *labels, **options):
    path = tmp_path / "map.csv"
    path.write_text("class,shared\n" + lines)
    return with_shared_names(samples(*labels, **options), read_class_map(path), path)


def test_names_are_replaced_merged_and_left_out(tmp_path):
    found = mapped(tmp_path, "hund,dog\nwelpe,dog\nkatze,cat\nvogel,\n", "katze", "vogel", "welpe", "hund", "katze")
    assert found.classes == ("cat", "dog") and [found.classes[c] for c in found.y] == ["cat", "dog", "dog", "cat"]
    assert found.keys == ("k0", "k2", "k3", "k4") and found.x[:, 0].tolist() == [0, 2, 3, 4]


def test_names_may_be_exchanged_and_unused_ones_are_told_of(tmp_path, capsys):
    found = mapped(tmp_path, "a,b\nb,a\nc,d\n", "a", "b", classes=("a", "b", "unused"))
    assert [found.classes[c] for c in found.y] == ["b", "a"] and found.classes == ("a", "b")
    assert "1 classes of" in (said := capsys.readouterr().err) and "such as c" in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("hund,dog\nhund,cat\n", ["line 3", "'hund'", "'cat'", "'dog'"]),
        ("hunt,dog\n", ["'hund'", "does not name", 'Did you mean "hunt"']),
        (",dog\n", ["line 2", "class is empty"]),
        ("hund,\n", ["all are left out"]),
        ("", ["names no class"]),
        ("hund,dog,cat\n", ["line 2", "3 cells"]),
    ],
)
def test_bad_maps_are_one_sentence(tmp_path, lines, words):
    with pytest.raises(UserError) as error:
        mapped(tmp_path, lines, "hund")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value


def test_a_name_may_be_written_with_composed_or_separate_marks(tmp_path):
    assert mapped(tmp_path, "Mu\u0308ll,Gru\u0308n\n", "M\u00fcll").classes == ("Gr\u00fcn",)


def test_two_equal_lines_are_one(tmp_path):
    assert mapped(tmp_path, "hund,dog\nhund,dog\n", "hund").classes == ("dog",)


def test_another_header_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "m.csv").write_text("mine,theirs\na,b\n")
    with pytest.raises(UserError, match="line 1 must be class,shared, but is mine,theirs"):
        read_class_map(tmp_path / "m.csv")
    with pytest.raises(UserError, match="no such file"):
        read_class_map(tmp_path / "none.csv")
