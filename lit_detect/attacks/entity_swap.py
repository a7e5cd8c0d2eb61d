"""Attack that replaces names, against detectors that read the graph of entities."""

from __future__ import annotations

from functools import cache

import numpy as np

from lit_detect.attacks.base import Attack, Attacked, attacked, checked_fraction
from lit_detect.attacks.word_lists import lines_of
from lit_detect.language.entities import Extractor
from lit_detect.records import Edit

_PLACE_BEFORE = frozenset("in at near from to towards toward around outside inside".split())


class EntitySwap(Attack):
    """Replaces names by other names, so that repeated mentions no longer match and new entities appear.

    Attacks on words change few names, so they leave the graph that FAST reads intact. This attack gives each mention a
    new name of its own, which removes the edges between sentences. With ``consistent``, all mentions of a name get the
    same new name, which keeps the graph and changes only the words of its nodes.

    The kind of a name is guessed from its form. After *in*, *at*, *from* and similar words it is a place. A name of
    capitals only is an acronym, whose letters are replaced. A name of several words is a given and a family name, and a
    single word is a family name. The new names come from a shipped list and do not occur in the text.

    Args:
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; null finds them by rules.
        fraction: Share of the mentions that are replaced, from 0 to 1; with ``consistent``, share of the names.
        consistent: Whether all mentions of a name get the same new name.

    Raises:
        UserError: If the fraction is out of range, or spaCy or the pipeline is missing.
    """

    def __init__(self, spacy_model: str | None = None, fraction: float = 1.0, consistent: bool = False) -> None:
        self._extractor = Extractor(spacy_model)
        self.fraction, self.consistent = checked_fraction("fraction", fraction), consistent
        self.name = f"EntitySwap[{self._extractor.name}{', consistent' if consistent else ''}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        rng = np.random.default_rng(seed)
        mentions = self._extractor(text)
        keys = [mention.text if self.consistent else str(i) for i, mention in enumerate(mentions)]
        different = list(dict.fromkeys(keys))
        drawn = rng.permutation(len(different))[: int(len(different) * self.fraction)]
        names = _Names(text, rng)
        new: dict[str, str] = {}
        edits = []
        chosen = {different[i] for i in drawn.tolist()}
        for key, mention in zip(keys, mentions, strict=True):
            if key in chosen:
                if key not in new:
                    new[key] = names.like(mention.text, text[: mention.start])
                edits.append(Edit(mention.start, mention.end, mention.text, new[key]))
        return attacked(text, edits, fraction=self.fraction, consistent=self.consistent, mentions=len(mentions))


class _Names:
    """Samples names that do not occur in a text, without replacement until all have been used."""

    def __init__(self, text: str, rng: np.random.Generator) -> None:
        self._text, self._rng = text, rng
        self._left: dict[str, list[str]] = {"given": [], "family": [], "place": []}

    def like(self, name: str, before: str) -> str:
        """Return a new name of the same kind as ``name``, judged by its form and the text before it."""
        letters = name.replace(".", "")
        if len(letters) > 1 and letters.isalpha() and letters.isupper():
            return self._acronym(name)
        if (before.split() or [""])[-1].lower() in _PLACE_BEFORE:
            return self._draw("place")
        return f"{self._draw('given')} {self._draw('family')}" if " " in name else self._draw("family")

    def _acronym(self, name: str) -> str:
        for _ in range(100):
            acronym = "".join(chr(ord("A") + int(self._rng.integers(26))) if sign.isalpha() else sign for sign in name)
            if acronym not in self._text:
                break
        return acronym

    def _draw(self, kind: str) -> str:
        if not self._left[kind]:
            fresh = [name for name in _names()[kind] if name not in self._text] or _names()[kind]
            self._left[kind] = [fresh[i] for i in self._rng.permutation(len(fresh)).tolist()]
        return self._left[kind].pop()


@cache
def _names() -> dict[str, list[str]]:
    return {kind: names for kind, *names in lines_of("names.txt")}
