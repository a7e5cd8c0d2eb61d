"""A text as a list of replaceable words with the gaps between them, and the stop words that attacks do not replace."""

from __future__ import annotations

import re

from lit_detect.language.synonyms import WORD
from lit_detect.records import Edit

_PART = re.compile(r"[^ ]+")
#: Words that attacks on words do not replace.
STOP_WORDS = frozenset(
    """
    a about above across after afterwards again against ain all almost alone along already also although am among
    amongst an and another any anyhow anyone anything anyway anywhere are aren aren't around as at back been before
    beforehand behind being below beside besides between beyond both but by can cannot could couldn couldn't d did
    didn didn't do does doesn doesn't doing don don't down due during either else elsewhere empty enough even ever
    everyone everything everywhere except few first for former formerly from further had hadn hadn't has hasn hasn't
    have haven haven't having he hence her here hereafter hereby herein hereupon hers herself him himself his how
    however hundred i if in indeed into is isn isn't it it's its itself just latter latterly least ll may me
    meanwhile mightn mightn't mine more moreover most mostly must mustn mustn't my myself namely needn needn't
    neither never nevertheless next no nobody none noone nor not nothing now nowhere o of off on once one only onto
    or other others otherwise our ours ourselves out over own per please quite rather re s same shan shan't she
    she's should should've shouldn shouldn't so some somehow someone something sometime somewhere such t than that
    that'll the their theirs them themselves then thence there thereafter thereby therefore therein thereupon these
    they this those through throughout thru thus to together too toward towards under unless until up upon used ve
    very was wasn wasn't we were weren weren't what whatever when whence whenever where whereafter whereas whereby
    wherein whereupon wherever whether which while whither who whoever whole whom whose why will with within without
    won won't would wouldn wouldn't y yet you you'd you'll you're you've your yours yourself yourselves
    """.split()
)


class EditableText:
    """The words of a text and the gaps around them. Attacks replace entries of ``words``.

    Args:
        text: The original text.
        spans: Start and end of each word, in characters.
        gaps: Text before each word and after the last one, one more than words; None takes them from the text.

    Attributes:
        words: The current words.
        original: The original words.
        gaps: Text before each word, and after the last one.
        tags: Parts of speech of the original words; None until an attack sets them.
    """

    tags: list[str] | None = None

    def __init__(self, text: str, spans: list[tuple[int, int]], gaps: list[str] | None = None) -> None:
        self._text, self._spans = text, spans
        self.original = [text[start:end] for start, end in spans]
        self.words = list(self.original)
        self.gaps = [text[a:b] for a, b in self._between()] if gaps is None else gaps

    @classmethod
    def of_words(cls, text: str) -> EditableText:
        """Divide a text into words of letters with inner hyphens and apostrophes; all else belongs to the gaps."""
        return cls(text, [word.span() for word in WORD.finditer(text)])

    @classmethod
    def of_parts(cls, text: str) -> EditableText:
        """Divide a text at its spaces, as the released code of DFTFooler does; runs of spaces become one.

        Punctuation and line breaks belong to the words.
        """
        spans = [part.span() for part in _PART.finditer(text)]
        return cls(text, spans, ["", *[" "] * (len(spans) - 1), ""][: len(spans) + 1])

    def _between(self) -> list[tuple[int, int]]:
        starts, ends = [start for start, _ in self._spans], [end for _, end in self._spans]
        return list(zip([0, *ends], [*starts, len(self._text)], strict=True))

    def window(self, first: int, last: int, replaced: dict[int, str] | None = None, original: bool = False) -> str:
        """Return the text of the words ``first`` to ``last`` - 1, with the gaps between them.

        Args:
            first: Index of the first word.
            last: Index after the last word.
            replaced: Words to insert instead, by word index; None replaces none.
            original: Whether to take the original words instead of the current ones.
        """
        words = self.original if original else self.words
        replaced = replaced or {}
        parts = [part for i in range(first, last) for part in (self.gaps[i], replaced.get(i, words[i]))]
        return "".join(parts[1:])

    def edits(self) -> list[Edit]:
        """Return the edits that turn the original text into the current one, sorted by offset."""
        edits = []
        for i, (start, end) in enumerate(self._between()):
            if self._text[start:end] != self.gaps[i]:
                edits.append(Edit(start, end, self._text[start:end], self.gaps[i]))
            if i < len(self.words) and self.words[i] != self.original[i]:
                edits.append(Edit(*self._spans[i], self.original[i], self.words[i]))
        return edits
