"""Other names: the attack that a graph of entities must withstand."""

from __future__ import annotations

from functools import cache

import numpy as np

from lit_detect.attacks.base import Attack, Attacked
from lit_detect.attacks.raid import attacked, checked_fraction
from lit_detect.attacks.word_lists import lines_of
from lit_detect.language.entities import Extractor
from lit_detect.records import Edit

_PLACE_BEFORE = frozenset("in at near from to towards toward around outside inside".split())


class EntitySwap(Attack):
    """Replaces names by others, so that what is mentioned twice no longer matches and new entities appear.

    Attacks on words leave most names alone, and with them the graph that FAST reads. Here each mention gets a new name
    of its own, which cuts the edges between sentences; or, for comparison, all mentions of a name the same new one,
    which keeps the graph and changes what its nodes say. Of a name's kind only this much is known: after *in*, *at*,
    *from* and the like it is a place, capitals alone are an acronym and become other letters, several words are given
    and family name, one word is a family name. New names are from a shipped list and not in the text.

    Args:
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; null finds them by rules.
        fraction: Share of the mentions that change, from 0 to 1; with ``consistent`` share of the names.
        consistent: Whether equal names get equal new names.

    Raises:
        UserError: If the fraction is out of range, or spaCy or the pipeline is missing.
    """

    def __init__(self, spacy_model: str | None = None, fraction: float = 1.0, consistent: bool = False) -> None:
        self._extractor = Extractor(spacy_model)
        self.fraction, self.consistent = checked_fraction(fraction), consistent
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
    """Draws names that are not in a text, each once before any comes again."""

    def __init__(self, text: str, rng: np.random.Generator) -> None:
        self._text, self._rng = text, rng
        self._left: dict[str, list[str]] = {"given": [], "family": [], "place": []}

    def like(self, name: str, before: str) -> str:
        """Return a name of the kind of another, by its form and the text before it."""
        letters = name.replace(".", "")
        if len(letters) > 1 and letters.isalpha() and letters.isupper():
            return self._acronym(name)
        if (before.split() or [""])[-1].lower() in _PLACE_BEFORE:
            return self._draw("place")
        return f"{self._draw('given')} {self._draw('family')}" if " " in name else self._draw("family")

    def _acronym(self, name: str) -> str:
        for _ in range(100):
            found = "".join(chr(ord("A") + int(self._rng.integers(26))) if sign.isalpha() else sign for sign in name)
            if found not in self._text:
                break
        return found

    def _draw(self, kind: str) -> str:
        if not self._left[kind]:
            fresh = [name for name in _names()[kind] if name not in self._text] or _names()[kind]
            self._left[kind] = [fresh[i] for i in self._rng.permutation(len(fresh)).tolist()]
        return self._left[kind].pop()


@cache
def _names() -> dict[str, list[str]]:
    return {kind: names for kind, *names in lines_of("names.txt")}
