"""Part-of-speech taggers with universal tags: by rules, or by a spaCy model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lit_detect.language.entities import load_spacy
from lit_detect.language.synonyms import Synonyms

_CLOSED = {
    "DET": "a an the this that these those each every either neither some any no all both another such what which",
    "ADP": "of in on at by with from to into onto upon over under above below between among against through during "
    "before after about across along around behind beyond despite except inside near off outside past since toward "
    "towards underneath until up via within without for as than like per",
    "PRON": "i me my mine we us our ours you your yours he him his she her hers it its they them their theirs who "
    "whom whose myself yourself himself herself itself ourselves themselves someone somebody anyone anybody everyone "
    "everybody something anything everything nothing nobody none there",
    "CONJ": "and or but nor so yet because although though while whereas unless if whether",
    "VERB": "am is are was were be been being do does did done have has had having can could may might must shall "
    "should will would said says say went go gone got get made make took take came come saw see knew know thought "
    "think gave give told tell found find left felt kept let began seemed became",
    "ADV": "not never always often sometimes seldom very too quite rather almost already also again ever just only "
    "even still soon now then here perhaps however therefore thus hence away together once twice well far",
    "NUM": "one two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand million",
}
_WORDS = {word: tag for tag, words in _CLOSED.items() for word in words.split()}
_MODALS = frozenset("can could may might must shall should will would do does did to not never i we you they".split())
_SUFFIXES = (
    ("ADV", ("ly",)),
    ("NOUN", "ness ment tion sion ity ance ence ship hood ism ist dom age ery ture or ers ants ents ings".split()),
    ("ADJ", "ous ful less able ible ive ical ish ary ant ent al ic est ier".split()),
    ("VERB", "ed ing ise ize ify ises izes ifies ened".split()),
)


class Tagger(ABC):
    """Base class of part-of-speech taggers.

    Attributes:
        name: Name of the class, and in brackets that of its model or lexicon.
    """

    name: str

    @abstractmethod
    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return the universal tag of each word of each sentence, such as NOUN or VERB.

        Args:
            sentences: The words of each sentence; punctuation marks may be words, or attached to words.
        """


class RuleTagger(Tagger):
    """Tags English by rules: a list of function words, the tags of a lexicon, the preceding word, and the ending.

    The tagger is a rough fallback if there is no spaCy model. A word of the lexicon gets one of its tags there. If it
    has several, the preceding word decides (a verb after *to*, a modal or a pronoun; a noun or adjective after an
    article, adjective or preposition), and otherwise the first of noun, verb, adjective, adverb. Other words are tagged
    by their ending, and as nouns if no ending matches.

    Args:
        lexicon: Words with their parts of speech, such as WordNet; null takes the shipped EmbeddedSynonyms.
    """

    def __init__(self, lexicon: Synonyms | None = None) -> None:
        if lexicon is None:
            from lit_detect.language.wordnet import EmbeddedSynonyms

            lexicon = EmbeddedSynonyms()
        self._lexicon = lexicon
        self.name = f"RuleTagger[{lexicon.name}]"
        self._known: dict[str, frozenset[str]] = {}

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return the tags; see the base class."""
        return [self._sentence(words) for words in sentences]

    def _sentence(self, words: Sequence[str]) -> list[str]:
        tags: list[str] = []
        before = before_tag = ""
        for word in words:
            bare = word.strip(".,;:!?\"'()[]“”‘’…—–-").lower()
            before_tag = self._word(bare, before, before_tag)
            tags.append(before_tag)
            before = bare
        return tags

    def _word(self, word: str, before: str, before_tag: str) -> str:
        if not word:
            return "."
        if word in _WORDS:
            return _WORDS[word]
        if word[0].isdigit():
            return "NUM"
        if word not in self._known:
            self._known[word] = self._lexicon.parts_of_speech(word)
        allowed = self._known[word]
        if len(allowed) == 1:
            return next(iter(allowed))
        if allowed:
            if "VERB" in allowed and before in _MODALS:
                return "VERB"
            nominal = before_tag in ("DET", "ADJ", "ADP", "NUM")
            order = ("NOUN", "ADJ", "VERB", "ADV") if nominal else ("NOUN", "VERB", "ADJ", "ADV")
            if word.endswith(("ed", "ing")) and not nominal:
                order = ("VERB", "ADJ", "NOUN", "ADV")
            return next(tag for tag in order if tag in allowed)
        return next((tag for tag, endings in _SUFFIXES if word.endswith(tuple(endings))), "NOUN")


class SpacyTagger(Tagger):
    """Tags words by a spaCy pipeline, whose parser, entity recogniser and lemmatizer are not run.

    Args:
        spacy_model: Name or folder of an installed spaCy pipeline with an attribute ruler or a morphologizer,
            such as ``en_core_web_sm``.

    Raises:
        UserError: If spaCy or the pipeline is missing, or the pipeline has no tagger.
    """

    def __init__(self, spacy_model: str) -> None:
        self._pipeline: Any = load_spacy(spacy_model, "attribute_ruler", "morphologizer")
        self.name = f"SpacyTagger[{spacy_model}]"

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return the tags; see the base class."""
        from spacy.tokens import Doc

        docs = (Doc(self._pipeline.vocab, words=list(words)) for words in sentences)
        idle = {"parser", "ner", "lemmatizer", "senter"}.intersection(self._pipeline.pipe_names)
        with self._pipeline.select_pipes(disable=sorted(idle)):
            return [[token.pos_ or "X" for token in doc] for doc in self._pipeline.pipe(docs)]


def same_part(tag: str, other: str) -> bool:
    """Return whether two tags are equal, or are noun and verb.

    The released code of DFTFooler and TextFooler compares parts of speech in this way.
    """
    return tag == other or {tag, other} <= {"NOUN", "VERB"}
