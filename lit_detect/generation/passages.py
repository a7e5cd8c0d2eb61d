"""Selection of human passages to continue, and the cleaning of human and machine text that hides their formatting."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lit_core.corpora import Corpus, Document
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.records import SPLITS

_LINK = re.compile(r"(?<!\S)\S*?(?:://|www\.)\S*")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_APOSTROPHES = re.compile("[’‘`´]")
#: Contractions are written out, since their frequency depends on register.
_SHORT = [
    (re.compile(rf"\b{short}\b", re.IGNORECASE), long)
    for short, long in (("can't", "cannot"), ("won't", "will not"), ("shan't", "shall not"))
] + [
    (re.compile(rf"(?<=[a-z]){short}\b", re.IGNORECASE), f" {long}")
    for short, long in (("n't", "not"), ("'ll", "will"), ("'re", "are"), ("'ve", "have"), ("'m", "am"), ("'d", "would"))
]
_DASH = re.compile(r"(?:(?<!\s)\s+)?(?:-{2,}|[—―])\s*|(?<!\s)\s+[-–]\s+")
_PAUSE, _DOTS = re.compile("[;:]"), re.compile(r"\.{2,}|…")
#: Quotes, apostrophes and marks of emphasis are deleted; other characters are replaced by a space.
_SILENT, _OTHER = re.compile(r"[\"“”„«»'_*]"), re.compile(r"[^\w\s.,!?-]")
_GLUED, _BEFORE = re.compile(r"(?<=[^\W\d_]{2}[.,!?])(?=[^\W\d_])"), re.compile(r"(?<!\s)\s+(?=[.,!?])")
_REPEATED = re.compile(r"([.,!?])[.,!?]+")
#: Start and end of running prose, and what it does not contain.
_PROSE = re.compile(r"[A-Z\"'(“‘_].*[.!?][\"')”’_]*", re.DOTALL)
_NO_PROSE = re.compile(
    r"\d|https?:|www\.|[][{}<>|\\=#$*~^@%]|\B/|/\B|\.\. |::|\s--?\w|[a-z]\.[a-z]{2}|^[^\w\n]*[-*•>] ", re.MULTILINE
)
_FRACTIONS = (0.6, 0.1, 0.3)


@dataclass(frozen=True)
class Passage:
    """A cleaned part of a document that begins with a sentence.

    Args:
        id: Id of the passage, unique in its corpus.
        document: Id of the document.
        domain: Name of the corpus.
        split: Split of the document.
        words: The words, in order.
        prefixes: Number of words of the prefix, by its length in tokens.
    """

    id: str
    document: str
    domain: str
    split: str
    words: tuple[str, ...]
    prefixes: dict[int, int]

    def prefix(self, priming: int) -> str:
        """Return the prefix of ``priming`` tokens, which the generator continues."""
        return " ".join(self.words[: self.prefixes[priming]])

    def continuation(self, priming: int, words: int) -> str:
        """Return the human continuation of the prefix of ``priming`` tokens, of ``words`` words."""
        start = self.prefixes[priming]
        return " ".join(self.words[start : start + words])


def clean(text: str) -> str:
    r"""Return a text without formatting that could reveal its class; the function is idempotent.

    - Line breaks and runs of spaces become a space, and dashes become `` - ``.
    - Semicolons and colons become commas, and several dots become one.
    - Contractions are written out.
    - Quotes, apostrophes, links, notes in brackets, words with digits, and all characters except letters, ``. , ! ?``
      and hyphens are removed.

    Example:
        >>> clean("“No; it won’t do,” said he —\nand *left* in 1811 (see [p. 3])...")
        'No, it will not do, said he - and left in see.'
    """
    former = ""
    while text != former:
        former, text = text, _cleaned(text)
    return text


def _cleaned(text: str) -> str:
    if "://" in text or "www." in text:
        text = _LINK.sub(" ", text)
    text = _APOSTROPHES.sub("'", _BRACKETS.sub(" ", text))
    if "'" in text:
        for short, long in _SHORT:
            text = short.sub(long, text)
    text = _SILENT.sub("", _PAUSE.sub(",", _DOTS.sub(".", _DASH.sub(" - ", text))))
    text = _GLUED.sub(" ", _OTHER.sub(" ", text.replace("–", "-")))
    words = text.split()
    if any(map(str.isdigit, text)):
        words = [word for word in words if not any(map(str.isdigit, word))]
    return _REPEATED.sub(r"\1", _BEFORE.sub("", " ".join(words)))


def cut_words(text: str, words: int) -> str | None:
    """Return the first ``words`` words of a cleaned text; None if it does not have more.

    A further word is needed, since the last word of a text that ends at a token may be incomplete.
    """
    all_words = text.split(" ")
    return " ".join(all_words[:words]) if len(all_words) > words else None


def split_continuation(prefix: str, raw: str) -> tuple[str, str]:
    """Return the cleaned prefix and continuation; characters that extend the prefix's last word belong to the prefix.

    Args:
        prefix: The prefix that the generator was given.
        raw: Text that the generator wrote after it.
    """
    extension = re.match(r"\S*", raw)
    end = extension.end() if extension else 0
    return clean(prefix + raw[:end]), clean(raw[end:])


def split_of(corpus: str, document: str) -> str:
    """Return the split of a document by a hash of its id: 60 % train, 10 % val, 30 % test.

    Args:
        corpus: Name of the corpus.
        document: Id of the document.
    """
    fraction = int.from_bytes(hashlib.sha256(f"{corpus}/{document}".encode()).digest()[:8]) / 2**64
    return SPLITS[0] if fraction < _FRACTIONS[0] else SPLITS[1] if fraction < sum(_FRACTIONS[:2]) else SPLITS[2]


def prose(text: str) -> Iterator[list[str]]:
    """Yield runs of consecutive paragraphs of running prose, each paragraph cleaned.

    A run ends at a heading, list, code, marked quotation, or a paragraph with links, markup or references.
    """
    run: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        stripped = paragraph.strip()
        if _PROSE.fullmatch(stripped) and not _NO_PROSE.search(stripped) and len(stripped) > 60:
            run.append(clean(stripped))
        elif run:
            yield run
            run = []
    if run:
        yield run


def passages(
    corpus: Corpus,
    tokenizer: Tokenizer,
    counts: dict[str, int],
    priming_tokens: Sequence[int],
    words: int,
    seed: int,
) -> list[Passage]:
    """Return random passages of a corpus, spread evenly over its documents.

    A passage begins with a paragraph. No prefix ends within a word, and ``words`` words follow the longest prefix.
    Passages do not overlap.

    Args:
        corpus: The corpus.
        tokenizer: Tokenizer that counts the priming tokens.
        counts: Number of passages by split.
        priming_tokens: Lengths of the prefixes, in tokens.
        words: Number of words that follow each prefix.
        seed: Seed of the choice of passages.

    Raises:
        UserError: If a split has too few passages.
    """
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in corpus.documents():
        documents[split_of(corpus.name, document.id)].append(document)
    selected: list[Passage] = []
    for split, count in counts.items():
        shuffled: list[list[Passage]] = []
        for document in documents[split] if count else []:
            candidates = list(_candidates(corpus.name, split, document, tokenizer, priming_tokens, words))
            random.Random(f"{seed}/{corpus.name}/{document.id}").shuffle(candidates)
            shuffled.append(candidates)
        random.Random(f"{seed}/{corpus.name}/{split}").shuffle(shuffled)
        # One of each document, then a second of each, and so on.
        rounds = max(map(len, shuffled), default=0)
        even = [rows[turn] for turn in range(rounds) for rows in shuffled if turn < len(rows)]
        if len(even) < count:
            raise UserError(
                f"{split} is {count} passages of {corpus.name}, but its documents have only {len(even)}. Lower "
                f"{split} or words."
            )
        selected += even[:count]
    return selected


def _candidates(
    domain: str, split: str, document: Document, tokenizer: Tokenizer, priming_tokens: Sequence[int], words: int
) -> Iterator[Passage]:
    number = 0
    for run in prose(document.text):
        start = 0
        while start < len(run):
            all_words = " ".join(run[start:]).split(" ")
            prefixes = _prefixes(all_words, tokenizer, priming_tokens)
            needed = max(prefixes.values()) + words if prefixes is not None else 0
            if prefixes is None or len(all_words) < needed:
                start += 1
                continue
            number += 1
            name = f"{document.id}/{number}"
            yield Passage(name, document.id, domain, split, tuple(all_words[:needed]), prefixes)
            taken = 0
            while taken < needed and start < len(run):
                taken += len(run[start].split(" "))
                start += 1


def _prefixes(words: Sequence[str], tokenizer: Tokenizer, priming_tokens: Sequence[int]) -> dict[int, int] | None:
    """Return the number of words by each number of tokens; None if one of them ends within a word."""
    ends, total = {0: 0}, 0
    beginning = [word if i == 0 else f" {word}" for i, word in enumerate(words[: max(priming_tokens)])]
    for count, ids in enumerate(tokenizer.encode_batch(beginning), 1):
        total += len(ids)
        ends[total] = count
    return {tokens: ends[tokens] for tokens in priming_tokens} if set(priming_tokens) <= set(ends) else None
