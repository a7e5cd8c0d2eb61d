"""Sentence splitting and extraction of names from a text, by rules or by a spaCy model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError, reason_of
from lit_detect.records import Mention

#: Abbreviations, after whose full stop no sentence ends.
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st rev hon capt col gen lt sgt gov sen rep pres jr sr messrs mme mlle esq vs etc cf al fig no "
    "vol pp ed eds approx inc ltd co corp dept jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
#: Words that are not names even with a capital: function words, sentence openers, titles, days and months.
_NO_NAMES = frozenset(
    """
    a an the this that these those here there i me my mine myself we us our ours ourselves you your yours yourself he
    him his himself she her hers herself it its itself they them their theirs themselves one ones someone somebody
    anyone anybody everyone everybody nobody none something anything everything nothing who whom whose which what
    whatever whoever when whenever where wherever why how however and or but nor so yet for if unless until till while
    whilst whereas although though because since as than then thus hence therefore moreover furthermore besides
    meanwhile otherwise instead indeed nevertheless nonetheless accordingly consequently finally lastly firstly secondly
    first second third next now later soon often sometimes always never ever perhaps maybe certainly clearly obviously
    apparently unfortunately fortunately interestingly surprisingly recently eventually suddenly initially originally
    overall generally usually typically specifically especially particularly additionally similarly likewise conversely
    alternatively still also again once already even just only not no yes well oh ah okay ok please thanks let both
    either neither each every all any some many much more most few fewer less least several other others another such
    same own to of in on at by from with without within into onto upon over under above below between among amongst
    through throughout during before after about against across along around behind beyond despite except inside near
    off out outside past per regarding toward towards up down via am is are was were be been being do does did done have
    has had having can could may might must shall should will would need ought don't doesn't didn't isn't aren't wasn't
    weren't can't couldn't won't wouldn't shouldn't haven't hasn't hadn't i'm i've i'll i'd it's that's there's he's
    she's we're they're you're let's what's who's according given based due today tomorrow yesterday
    mr mrs ms miss dr prof sir madam
    monday tuesday wednesday thursday friday saturday sunday
    january february march april june july august september october november december
    """.split()
)
#: Lower-case words that join the parts of a name.
_PARTICLES = frozenset("of the de la del da di do dos du des le van von der den bin ibn al el".split())
_GAP = re.compile(r"""(?P<stop>(?<![.!?…])[.!?…]+["'”’»)\]]*)?\s+""")
_OPENERS = "\"'“‘«([*•-–—"
_LAST_WORD = re.compile(r"(?<![\w.])[\d_.]*([^\W\d_][\w.]*)$")
_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W_](?:\w|['’&-](?=\w))*")
_POSSESSIVE = re.compile(r"['’][sS]?$")
_SPEECH = frozenset('"“”«»‘:*•')  # after these, any word has a capital
_NO_NAME_LABELS = frozenset("CARDINAL DATE MONEY ORDINAL PERCENT QUANTITY TIME".split())


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    text: str
    capital: bool
    forced: bool  # whether any word would have a capital there

    @property
    def may_be_name(self) -> bool:
        return self.capital and self.text.lower().replace("’", "'") not in _NO_NAMES


class Extractor:
    """Finds the names of people, places, organisations and other things in a text.

    The rules are for English and other languages that write names with capitals. A name is a run of capitalised words
    that are not function words, sentence openers, titles, days or months. Particles, as in *Bank of England*, may join
    the words. Titles such as *Mr.* and a final *'s* are left out.

    Some words have a capital at their position in any case: the first word of a sentence or of direct speech, and words
    of a headline. Such a word belongs to a name only if it has a capital elsewhere in the text, or consists of capitals
    only, or begins a longer name and nowhere occurs in lower case. Numbers and dates are not names, even if spaCy
    returns them.

    Args:
        spacy_model: Name or folder of an installed spaCy pipeline with an entity recogniser, such as
            ``en_core_web_sm``; None uses the rules.

    Raises:
        UserError: If spaCy or the pipeline is missing, or the pipeline recognises no entities.
    """

    def __init__(self, spacy_model: str | None = None) -> None:
        self._pipeline = None if spacy_model is None else load_spacy(spacy_model, "ner")
        self.name = "rules" if spacy_model is None else spacy_model

    def __call__(self, text: str) -> list[Mention]:
        """Return all mentions of names in a text, sorted by offset, with the sentences of `split_sentences`."""
        sentences = split_sentences(text)
        if self._pipeline is None:
            return list(_by_rules(text, sentences))
        spans = ((e.start_char, e.end_char) for e in self._pipeline(text).ents if e.label_ not in _NO_NAME_LABELS)
        return list(_placed(text, sentences, spans))


def extract_entities(text: str) -> list[Mention]:
    """Return all mentions of names in a text, by the rules of `Extractor`, sorted by offset.

    Example:
        >>> [mention.text for mention in extract_entities("Yesterday Mr. Darcy left London. Darcy was proud.")]
        ['Darcy', 'London', 'Darcy']
    """
    return list(_by_rules(text, split_sentences(text)))


def split_sentences(text: str) -> list[tuple[int, int]]:
    r"""Return the spans of the sentences of a text, without surrounding white space.

    A sentence ends at a full stop, question mark or exclamation mark before white space, unless a lower-case letter
    follows or the full stop belongs to an abbreviation or an initial. It also ends at an empty line, and at a line
    break that no lower-case letter follows.

    Args:
        text: The text.

    Returns:
        Start and end of each sentence, in characters. Each character except white space is in exactly one sentence.

    Example:
        >>> text = "Mr. Darcy left. Who knew?\nNobody"
        >>> [text[start:end] for start, end in split_sentences(text)]
        ['Mr. Darcy left.', 'Who knew?', 'Nobody']
    """
    spans, start = [], len(text) - len(text.lstrip())
    for gap in _GAP.finditer(text, start):
        if gap.end() < len(text) and _ends_sentence(text, gap):
            spans.append((start, gap.end("stop") if gap["stop"] else gap.start()))
            start = gap.end()
    end = len(text.rstrip())
    return [*spans, (start, end)] if start < end else spans


def _ends_sentence(text: str, gap: re.Match[str]) -> bool:
    blanks = text[gap.end("stop") if gap["stop"] else gap.start() : gap.end()]
    if blanks.count("\n") > 1:
        return True
    after = next((character for character in text[gap.end() : gap.end() + 4] if character not in _OPENERS), "")
    if after.islower():
        return False
    if "\n" in blanks:
        return True
    if gap["stop"] != ".":
        return gap["stop"] is not None
    word = _LAST_WORD.search(text[max(0, gap.start() - 20) : gap.start()])
    if word is None:
        return True
    initial = len(word[1]) == 1 and word[1].isupper() and word[1] != "I"
    return not (initial or "." in word[1] or word[1].lower() in _ABBREVIATIONS)


def _by_rules(text: str, sentences: Sequence[tuple[int, int]]) -> Iterator[Mention]:
    words = [list(_words(text, start, end)) for start, end in sentences]
    known = {word.text for sentence in words for word in sentence if word.may_be_name and not word.forced}
    small = {word.text for sentence in words for word in sentence if not word.capital}
    for number, sentence in enumerate(words):
        for first, last in _runs(text, sentence, known, small):
            start, end = sentence[first].start, sentence[last].end
            yield Mention(number, start, end, text[start:end])


def _words(text: str, start: int, end: int) -> Iterator[_Word]:
    words = []
    for match in _WORD.finditer(text, start, end):
        word = _POSSESSIVE.sub("", match[0])
        words.append((match.start(), match.start() + len(word), word))
    headline = not any(word[0].islower() for _, _, word in words)
    previous_end = start
    for begin, stop, word in words:
        acronym = len(word) > 1 and word.isupper()
        opens = previous_end == start or not _SPEECH.isdisjoint(text[previous_end:begin])
        yield _Word(begin, stop, word, word[0].isupper(), headline or (opens and not acronym))
        previous_end = stop


def _runs(text: str, words: Sequence[_Word], known: set[str], small: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the indices of the first and the last word of each name."""
    names = [word.may_be_name and (not word.forced or word.text in known) for word in words]
    for i in range(len(words) - 1):  # a first name that opens a sentence
        follows = names[i + 1] and not words[i + 1].forced
        common = words[i].text.lower() in small
        if words[i].may_be_name and not common and follows and _touch(text, words[i], words[i + 1]):
            names[i] = True
    i = 0
    while i < len(words):
        if not names[i]:
            i += 1
            continue
        last = i
        while (following := _next_in_name(text, words, names, last)) is not None:
            last = following
        yield i, last
        i = last + 1


def _next_in_name(text: str, words: Sequence[_Word], names: Sequence[bool], last: int) -> int | None:
    """Return the index of the next word of a name, after up to two particles; None if the name ends."""
    for i in range(last + 1, min(last + 4, len(words))):
        if not _touch(text, words[i - 1], words[i]):
            return None
        if names[i]:
            return i
        if words[i].text not in _PARTICLES:
            return None
    return None


def _touch(text: str, word: _Word, other: _Word) -> bool:
    """Return whether only white space is between two words, or the full stop of an initial and white space."""
    between = text[word.end : other.start]
    initial = len(word.text) == 1 and between.startswith(".")
    return between[initial:].isspace()


def _placed(text: str, sentences: Sequence[tuple[int, int]], spans: Iterator[tuple[int, int]]) -> Iterator[Mention]:
    """Yield spans as mentions: with the sentence in which they start, cut at its end, and without white space."""
    number = 0
    for start, end in spans:
        while number < len(sentences) and sentences[number][1] <= start:
            number += 1
        if number == len(sentences):
            return
        end = min(end, sentences[number][1])
        name = text[start:end]
        start, end = start + len(name) - len(name.lstrip()), end - len(name) + len(name.rstrip())
        if start < end:
            yield Mention(number, start, end, text[start:end])


class _Pipeline(Protocol):
    def __call__(self, text: str) -> Any: ...


def load_spacy(model: str, *components: str) -> _Pipeline:
    """Load a spaCy pipeline.

    Args:
        model: Name or folder of the pipeline.
        components: Names of components such as ``ner``, of which the pipeline must have at least one.

    Raises:
        UserError: If spaCy or the pipeline is missing, or the pipeline has none of the components.
    """
    if not RequirementCache("spacy>=3.7"):
        raise UserError(
            f'spacy_model is {model}, but spaCy is not installed. Install it with `pip install "lit-shift[spacy]"`, or '
            "set spacy_model to null for rules."
        )
    import spacy

    try:
        pipeline = spacy.load(model)
    except (OSError, ValueError) as error:
        raise UserError(
            f"spacy_model is {model}, which cannot be loaded ({reason_of(error, 120)}). Give an installed "
            "pipeline or a folder, or null for rules."
        ) from error
    if not set(components) & set(pipeline.pipe_names):
        raise UserError(
            f"spacy_model is {model}, which has no {' or '.join(components)} "
            f"({', '.join(pipeline.pipe_names) or 'nothing'}). Give a pipeline that has one, or null for rules."
        )
    return pipeline
