"""Real paragraphs, and the same with their words in another order: enough for tests of formats and of data."""

import random
from dataclasses import replace
from functools import cache
from itertools import islice

from lit_core.corpora import Austen
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record


class ChapterStarts(Austen):
    """The first pages of each chapter: as many documents, read and cleaned in a tenth of the time."""

    def documents(self):
        for document in super().documents():
            yield replace(document, text=document.text[:3_000])


@cache
def passages(n):
    """The first n different paragraphs of 200 to 2,000 characters."""
    found = {}
    for document in islice(Austen().documents(), 40):
        for paragraph in document.text.split("\n\n"):
            if 200 <= len(paragraph) <= 2000:
                found.setdefault(" ".join(paragraph.split()))
        if len(found) >= n:
            break
    assert len(found) >= n
    return tuple(islice(found, n))


def shuffled(text, seed=0):
    """The words of a text in another order."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def pairs(n, source="shuffle", **fields):
    """Records of n passages and their twins, which share a pair_id."""
    for number, text in enumerate(passages(n)):
        both = {"pair_id": f"pair-{number}", "domain": ("emma", "lady susan")[number % 2], **fields}
        yield Record(f"h{number}", text, HUMAN, source=HUMAN_SOURCE, **both)
        yield Record(f"m{number}", shuffled(text), MACHINE, source=source, decoding={"top_k": number % 2}, **both)
