"""Make ``lit_detect/embedded/synonyms.tsv.xz`` from WordNet 3.0: the senses of the most frequent English words.

Run from a checkout, ``python tools/make_synonyms.py`` fetches Debian's wordnet-base, and GloVe, whose words are in the
order of their frequency. It keeps the senses of base forms among the first 15,000 words, up to four per part of speech,
and in them the words among the first 60,000. Senses of one word stay, since they tell its possible parts of speech.
"""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

from lit_detect.language.word_vectors import WordVectors
from lit_detect.language.wordnet import Lexicon, WordNet, write_extract

FREQUENT, KNOWN, SENSES = 15_000, 60_000, 4


def extract(lexicon: Lexicon, ranks: dict[str, int]) -> Lexicon:
    """Return the part of a lexicon that frequent words need."""
    frequent = {word for word, rank in ranks.items() if rank < FREQUENT}
    known = {word for word, rank in ranks.items() if rank < KNOWN}
    senses = {key: numbers[:SENSES] for key, numbers in lexicon.senses.items() if key[0] in frequent}
    kept = sorted({number for numbers in senses.values() for number in numbers})
    place = {number: i for i, number in enumerate(kept)}
    synsets = [tuple(word for word in lexicon.synsets[number] if word in known) for number in kept]
    words = {word for synset in synsets for word in synset}
    return Lexicon(
        synsets=synsets,
        senses={key: tuple(place[number] for number in numbers) for key, numbers in senses.items()},
        opposites={
            (word, part): found
            for (word, part), opposite in lexicon.opposites.items()
            if (word, part) in senses and (found := tuple(other for other in opposite if other in words))
        },
        irregular={(part, word): forms for (part, word), forms in lexicon.irregular.items() if word in words},
    )


def main() -> None:
    """Write the shipped file and print its hash."""
    vectors = WordVectors()
    ranks = {word: rank for rank, word in enumerate(vectors.words)}
    content = write_extract(extract(WordNet().lexicon, ranks)).encode()
    target = Path(__file__).parents[1] / "lit_detect" / "embedded" / "synonyms.tsv.xz"
    target.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(f"{target}: {content.count(b'synset')} senses, {target.stat().st_size} bytes")
    print(f"SHA-256 of the decompressed file: {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
