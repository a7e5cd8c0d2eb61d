"""WordNet: synonyms, antonyms and parts of speech, from Debian's package or from the shipped extract."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from lit_core.errors import UserError, check_at_least
from lit_core.fetch.debian import DebianPackage
from lit_core.files.shipped import read_shipped
from lit_detect.language.inflection import analyse, bases_of, inflect
from lit_detect.language.synonyms import WORD, Synonyms

_FILE = Path(__file__).parents[1] / "embedded" / "synonyms.tsv.xz"
#: Of the decompressed file.
SHA256 = "a8047674fac4b808178eed332dd7af57e90ae8af8c68b1608583f029f6903443"
_KNOWN = {"1%3a3.0-37": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"}
_PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_TAGS = {"n": "NOUN", "v": "VERB", "a": "ADJ", "r": "ADV"}


@dataclass(frozen=True)
class Lexicon:
    """Single words in lower case and their senses.

    Args:
        synsets: The words of each sense.
        senses: Indices of the senses of a word and part of speech (n, v, a, r), the most frequent first.
        opposites: Antonyms by word and part of speech.
        irregular: Irregular forms by part of speech and base.
    """

    synsets: Sequence[tuple[str, ...]]
    senses: Mapping[tuple[str, str], tuple[int, ...]]
    opposites: Mapping[tuple[str, str], tuple[str, ...]]
    irregular: Mapping[tuple[str, str], tuple[str, ...]]


class Lexical(Synonyms):
    """Base class of sources of synonyms by the senses of WordNet (Miller 1995), inflected like the word.

    WordNet has no similarity of words. It is replaced by 1 divided by the rank of the common sense by frequency, which
    is 1 for synonyms of the most frequent sense. The endings -s, -ed, -ing, -er and -est are removed from a word and
    added to its synonyms. Irregular verbs are not synonyms in the past tense. Antonyms are not synonyms.

    Args:
        senses: Number of most frequent senses of each part of speech whose words are synonyms, 1 or more; null takes
            all senses.
    """

    def __init__(self, senses: int | None = 3) -> None:
        check_at_least(1, senses=senses)
        self.senses = senses
        self.thresholds = {"senses": senses}
        self._synonyms: dict[str, list[tuple[str, float]]] = {}

    @property
    @abstractmethod
    def lexicon(self) -> Lexicon:
        """The words and their senses."""

    def candidates(self, word: str) -> list[tuple[str, float]]:
        """Return the synonyms of a word, those of frequent senses first; see the base class."""
        if word not in self._synonyms:
            similarities: dict[str, float] = {}
            for base, part, ending in self._bases(word):
                for rank, number in enumerate(self.lexicon.senses[base, part][: self.senses], 1):
                    for other in self.lexicon.synsets[number]:
                        form = inflect(other, part, ending, self.lexicon.irregular)
                        if form is not None and form != word:
                            similarities[form] = max(similarities.get(form, 0.0), 1 / rank)
            opposite = self.antonyms(word)
            synonyms = [(other, similarity) for other, similarity in similarities.items() if other not in opposite]
            self._synonyms[word] = sorted(synonyms, key=lambda pair: -pair[1])
        return self._synonyms[word]

    def antonyms(self, word: str) -> frozenset[str]:
        """Return the antonyms of a word, inflected like the word."""
        forms = (
            inflect(other, part, ending, self.lexicon.irregular)
            for base, part, ending in self._bases(word)
            for other in self.lexicon.opposites.get((base, part), ())
        )
        return frozenset(form for form in forms if form is not None)

    def parts_of_speech(self, word: str) -> frozenset[str]:
        """Return the possible universal tags of a word."""
        return frozenset(_TAGS[part] for _, part, _ in self._bases(word))

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and bool(self._bases(word))

    def _bases(self, word: str) -> list[tuple[str, str, str]]:
        return list(analyse(word, self.lexicon.senses, self.lexicon.irregular, self._irregular_bases))

    @cached_property
    def _irregular_bases(self) -> dict[str, tuple[tuple[str, str], ...]]:
        return bases_of(self.lexicon.irregular)


class WordNet(DebianPackage, Lexical):
    """WordNet 3.0 with 117,659 senses, from Debian's package wordnet-base of 6 MB.

    Args:
        from_folder: Folder that wordnet-base was unpacked in with dpkg-deb -x; null fetches it with apt.
        senses: Number of most frequent senses of each part of speech whose words are synonyms, 1 or more; null takes
            all senses.
    """

    name = "WordNet-3.0"
    package = "wordnet-base"
    known = _KNOWN

    def __init__(self, from_folder: str | None = None, senses: int | None = 3) -> None:
        DebianPackage.__init__(self, from_folder)
        Lexical.__init__(self, senses)

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words and their senses.

        Raises:
            UserError: If the package cannot be fetched or is not in the folder.
        """
        return read_wordnet({path.name: path for path in self.files("usr/share/wordnet", "*.*")})


class EmbeddedSynonyms(Lexical):
    """The shipped extract of WordNet 3.0 with the synonyms of the most frequent English words.

    See ``embedded/PROVENANCE.md``.

    Args:
        senses: Number of most frequent senses of each part of speech whose words are synonyms, 1 or more; null takes
            all senses.
    """

    name = "EmbeddedSynonyms"

    @property
    def lexicon(self) -> Lexicon:
        """The words and their senses.

        Raises:
            RunFailure: If the shipped file is damaged.
        """
        return _shipped_lexicon()


@cache
def _shipped_lexicon() -> Lexicon:
    """Read the shipped extract once for all parts of a process that look words up in it."""
    return read_extract(read_shipped(_FILE, SHA256))


# The two formats


def read_wordnet(files: Mapping[str, Path]) -> Lexicon:
    """Read the data, index and exception files of WordNet 3.

    Args:
        files: The files by name, such as ``data.noun``.

    Raises:
        UserError: If a file is missing.
    """
    wanted = [f"{kind}.{name}" for kind in ("data", "index") for name in _PARTS.values()]
    if missing := [name for name in wanted if name not in files]:
        raise UserError(f"WordNet has no file {missing[0]}. Give the folder with all of {', '.join(wanted)}.")
    synsets: list[tuple[str, ...]] = []
    numbers: dict[tuple[str, int], int] = {}
    pointers: dict[tuple[str, int], _Synset] = {}
    senses: dict[tuple[str, str], tuple[int, ...]] = {}
    irregular: dict[tuple[str, str], tuple[str, ...]] = {}
    for part, name in _PARTS.items():
        for synset in _synsets(files[f"data.{name}"]):
            numbers[part, synset.offset] = len(synsets)
            pointers[part, synset.offset] = synset
            synsets.append(tuple(word for word in synset.words if _is_word(word)))
        for word, offsets in _index(files[f"index.{name}"]):
            with_word = [numbers[part, offset] for offset in offsets if word in synsets[numbers[part, offset]]]
            if with_word:
                senses[word, part] = tuple(with_word)
        if f"{name}.exc" in files:
            for form, base in _exceptions(files[f"{name}.exc"]):
                irregular[part, base] = (*irregular.get((part, base), ()), form)
    return Lexicon(synsets, senses, _opposites(pointers), irregular)


@dataclass(frozen=True)
class _Synset:
    offset: int
    words: tuple[str, ...]
    opposites: tuple[tuple[int, int], ...]  # number of the word, from 1, and file offset of its opposite sense
    similar: tuple[int, ...]


def _synsets(path: Path) -> Iterator[_Synset]:
    for line in _lines(path):
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        words = tuple(word.split("(")[0] for word in fields[4 : 4 + 2 * count : 2])  # (a), (p), (ip): its position
        start = 5 + 2 * count
        links = [fields[i : i + 4] for i in range(start, start + 4 * int(fields[start - 1]), 4)]
        opposites = tuple((int(link[3][:2], 16), int(link[1])) for link in links if link[0] == "!")
        similar = tuple(int(link[1]) for link in links if link[0] == "&")
        yield _Synset(int(fields[0]), words, opposites, similar)


def _index(path: Path) -> Iterator[tuple[str, list[int]]]:
    for line in _lines(path):
        fields = line.split()
        if _is_word(fields[0]):
            yield fields[0], [int(offset) for offset in fields[-int(fields[2]) :]]


def _exceptions(path: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        form, *bases = line.split()
        for base in bases:
            if _is_word(form) and _is_word(base) and form != base:
                yield form, base


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file without those of the licence, which start with spaces."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(" "):
            yield line


def _is_word(word: str) -> bool:
    return WORD.fullmatch(word) is not None and word == word.lower()


def _opposites(pointers: Mapping[tuple[str, int], _Synset]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the antonyms of each word: its own, and otherwise those of the adjectives that it is similar to.

    In WordNet only *fast* is the opposite of *slow*, and *quick* is similar to *fast*.
    """
    antonyms: dict[tuple[str, str], dict[str, None]] = {}
    for (part, _), synset in pointers.items():
        for number, word in enumerate(synset.words, 1):
            opposite = [offset for source, offset in synset.opposites if source == number]
            if not synset.opposites:
                opposite += [offset for near in synset.similar for _, offset in pointers[part, near].opposites]
            words = [other for offset in opposite for other in pointers[part, offset].words if _is_word(other)]
            if words and _is_word(word):
                antonyms.setdefault((word, part), {}).update(dict.fromkeys(words))
    return {key: tuple(words) for key, words in antonyms.items()}


def write_extract(lexicon: Lexicon) -> str:
    """Return a lexicon as tab-separated lines of kind, part of speech and words, which `read_extract` reads."""
    lines = [f"synset\t\t{' '.join(words)}" for words in lexicon.synsets]
    lines += [f"word\t{part}\t{word}\t{' '.join(map(str, s))}" for (word, part), s in lexicon.senses.items()]
    lines += [f"opposite\t{part}\t{word}\t{' '.join(w)}" for (word, part), w in lexicon.opposites.items()]
    lines += [f"irregular\t{part}\t{word}\t{' '.join(f)}" for (part, word), f in lexicon.irregular.items()]
    return "\n".join(lines) + "\n"


def read_extract(content: str) -> Lexicon:
    """Return the lexicon that `write_extract` wrote.

    Args:
        content: The tab-separated lines.
    """
    rows: dict[str, list[list[str]]] = {"synset": [], "word": [], "opposite": [], "irregular": []}
    for line in content.splitlines():
        kind, *fields = line.split("\t")
        rows[kind].append(fields)

    def pairs(kind: str) -> Iterable[tuple[str, str, list[str]]]:
        return ((part, word, rest.split()) for part, word, rest in rows[kind])

    return Lexicon(
        synsets=[tuple(words.split()) for _, words in rows["synset"]],
        senses={(word, part): tuple(map(int, numbers)) for part, word, numbers in pairs("word")},
        opposites={(word, part): tuple(words) for part, word, words in pairs("opposite")},
        irregular={(part, word): tuple(forms) for part, word, forms in pairs("irregular")},
    )
