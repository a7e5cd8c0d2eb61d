"""Human passages to be continued, and what is done to human and machine text alike so that formatting tells nothing."""

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

_LINK = re.compile(r"\S*(?:://|www\.)\S*")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_APOSTROPHES = re.compile("[’‘`´]")
#: Short forms are written out, since how often they are used is a matter of register.
_SHORT = [
    (re.compile(rf"\b{short}\b", re.IGNORECASE), long)
    for short, long in (("can't", "cannot"), ("won't", "will not"), ("shan't", "shall not"))
] + [
    (re.compile(rf"(?<=[a-z]){short}\b", re.IGNORECASE), f" {long}")
    for short, long in (("n't", "not"), ("'ll", "will"), ("'re", "are"), ("'ve", "have"), ("'m", "am"), ("'d", "would"))
]
_DASH = re.compile(r"\s*(?:-{2,}|[—―])\s*|\s+[-–]\s+")
_PAUSE, _DOTS = re.compile("[;:]"), re.compile(r"\.{2,}|…")
#: An underscore marks emphasis, quotes and apostrophes vanish without a blank, other signs leave one.
_SILENT, _OTHER = re.compile(r"[\"“”„«»'_*]"), re.compile(r"[^\w\s.,!?-]")
_GLUED, _BEFORE = re.compile(r"(?<=[^\W\d_]{2}[.,!?])(?=[^\W\d_])"), re.compile(r"\s+(?=[.,!?])")
_REPEATED = re.compile(r"([.,!?])[.,!?]+")
#: What only running prose has at its end, and what it does not have inside.
_PROSE = re.compile(r"[A-Z\"'(“‘_].*[.!?][\"')”’_]*", re.DOTALL)
_NO_PROSE = re.compile(
    r"\d|https?:|www\.|[][{}<>|\\=#$*~^@%]|\B/|/\B|\.\. |::|\s--?\w|[a-z]\.[a-z]{2}|^\W*[-*•>] ", re.MULTILINE
)
_FRACTIONS = (0.6, 0.1, 0.3)


@dataclass(frozen=True)
class Passage:
    """A stretch of a document, cleaned, that begins with a sentence.

    Args:
        id: Name of the passage, unique in its corpus.
        document: Name of the document.
        domain: Name of the corpus.
        split: Split of the document.
        words: The words, in order.
        prefixes: For each priming length in tokens, how many words it is.
    """

    id: str
    document: str
    domain: str
    split: str
    words: tuple[str, ...]
    prefixes: dict[int, int]

    def prefix(self, priming: int) -> str:
        """Return what a generator is given, of so many tokens."""
        return " ".join(self.words[: self.prefixes[priming]])

    def continuation(self, priming: int, words: int) -> str:
        """Return how the human went on, in so many words."""
        start = self.prefixes[priming]
        return " ".join(self.words[start : start + words])


def clean(text: str) -> str:
    r"""Take from a text what formatting alone gives away; a second time changes nothing.

    Line breaks and runs of blanks become one blank, dashes `` - ``; semicolons, colons and dots in a row become a comma
    or a dot; short forms are written out; quotes, apostrophes, links, bracketed notes, words with digits, and all signs
    but letters, ``. , ! ?`` and hyphens are left out.

    Example:
        >>> clean("“No; it won’t do,” said he —\nand *left* in 1811 (see [p. 3])...")
        'No, it will not do, said he - and left in see.'
    """
    former = ""
    while text != former:
        former, text = text, _cleaned(text)
    return text


def _cleaned(text: str) -> str:
    text = _APOSTROPHES.sub("'", _BRACKETS.sub(" ", _LINK.sub(" ", text)))
    for short, long in _SHORT:
        text = short.sub(long, text)
    text = _SILENT.sub("", _PAUSE.sub(",", _DOTS.sub(".", _DASH.sub(" - ", text))))
    text = _GLUED.sub(" ", _OTHER.sub(" ", text.replace("–", "-")))
    words = (word for word in text.split() if not any(sign.isdigit() for sign in word))
    return _REPEATED.sub(r"\1", _BEFORE.sub("", " ".join(words)))


def cut_words(text: str, words: int) -> str | None:
    """Return the first words of a cleaned text, or None if it has no more than them.

    One more must follow, since the last word of a text that was cut at a token may be half a word.
    """
    found = text.split(" ")
    return " ".join(found[:words]) if len(found) > words else None


def split_continuation(prefix: str, raw: str) -> tuple[str, str]:
    """Return prefix and continuation, where what a generator hung on the prefix's last word belongs to the prefix."""
    hung = re.match(r"\S*", raw)
    end = hung.end() if hung else 0
    return clean(prefix + raw[:end]), clean(raw[end:])


def split_of(corpus: str, document: str) -> str:
    """Return the split of a document: 60 % train, 10 % val, 30 % test, by a hash of its name, so that it never changes.

    Args:
        corpus: Name of the corpus.
        document: Name of the document.
    """
    number = int.from_bytes(hashlib.sha256(f"{corpus}/{document}".encode()).digest()[:8]) / 2**64
    return SPLITS[0] if number < _FRACTIONS[0] else SPLITS[1] if number < sum(_FRACTIONS[:2]) else SPLITS[2]


def prose(text: str) -> Iterator[list[str]]:
    """Yield runs of neighbouring paragraphs that are running prose, each paragraph cleaned.

    Headings, lists, code, quotations marked as such, and what holds links, markup or references, end a run.
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
    """Choose passages of a corpus, spread evenly over its documents.

    A passage begins with a paragraph, a word begins after each priming length, so that no prefix ends within a word,
    and `words` words follow the longest prefix. Passages do not overlap.

    Args:
        corpus: Where the documents come from.
        tokenizer: Counts the priming tokens.
        counts: Number of passages by split.
        priming_tokens: Lengths of the prefixes in tokens.
        words: Words that follow each prefix.
        seed: Seed of what is chosen.

    Raises:
        UserError: If a split has too few passages.
    """
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in corpus.documents():
        documents[split_of(corpus.name, document.id)].append(document)
    found: list[Passage] = []
    for split, wanted in counts.items():
        chosen: list[list[Passage]] = []
        for document in documents[split] if wanted else []:
            candidates = list(_candidates(corpus.name, split, document, tokenizer, priming_tokens, words))
            random.Random(f"{seed}/{corpus.name}/{document.id}").shuffle(candidates)
            chosen.append(candidates)
        random.Random(f"{seed}/{corpus.name}/{split}").shuffle(chosen)
        # One of each document, then a second of each, and so on.
        rounds = max(map(len, chosen), default=0)
        even = [rows[turn] for turn in range(rounds) for rows in chosen if turn < len(rows)]
        if len(even) < wanted:
            raise UserError(
                f"passages asks for {wanted} of {corpus.name} for {split}, but its documents have {len(even)}; ask for "
                "fewer, or for shorter ones."
            )
        found += even[:wanted]
    return found


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
    """Return how many words each number of tokens is; None if one ends within a word."""
    ends, total = {0: 0}, 0
    beginning = [word if place == 0 else f" {word}" for place, word in enumerate(words[: max(priming_tokens)])]
    for count, ids in enumerate(tokenizer.encode_batch(beginning), 1):
        total += len(ids)
        ends[total] = count
    return {tokens: ends[tokens] for tokens in priming_tokens} if set(priming_tokens) <= set(ends) else None
