"""Scores of human texts and their beginnings under a detector, for ``benchmarks/false_alarms.py --scores``.

    python benchmarks/human_scores.py --detector log_likelihood --published FOLDER --output scores.jsonl

``--published`` names a folder of Fast-DetectGPT's files, ``--texts`` a file of human texts as ``lit-detect calibrate``
takes them, of which ``--by`` names the column or key of the domain. No text is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from false_alarms import SHORTEST, published

from lit_core.files.paths import atomic_write
from lit_detect.data.one_class import read_texts
from lit_detect.loading import load, score_many
from lit_detect.prefixes import cut_to_lengths, length_grid
from lit_detect.records import HUMAN


def main() -> None:
    """Write the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", required=True, help="what lit_detect.load takes")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--published", help="folder of Fast-DetectGPT's files")
    source.add_argument("--texts", help="a file of human texts")
    parser.add_argument("--by", help="column or key of the domain in the file")
    parser.add_argument("--most", type=int, default=10_000, help="texts to score, evenly from all")
    parser.add_argument("--output", type=Path, required=True, help="the scores to write")
    given = parser.parse_args()
    if given.published:
        named = published(given.published)
    else:
        named = list(zip(*read_texts(given.texts, "texts", HUMAN, by=given.by), strict=True))
    named = named[:: -(-len(named) // given.most)]
    judge = load(given.detector)
    texts = [text for text, _ in named]
    tokens = judge.count_tokens(texts)
    cut = cut_to_lengths(texts, tokens, length_grid(SHORTEST, max(tokens))[:-1], judge.count_tokens)
    asked = [text for own, whole in zip(cut, texts, strict=True) for text in (*own.values(), whole)]
    scores = iter(score_many(judge, asked, 16).scores.tolist())
    rows = [
        {"id": str(number), "domain": domain, "tokens": length, "score": next(scores)}
        for number, ((_, domain), own, whole) in enumerate(zip(named, cut, tokens, strict=True))
        for length in (*own, whole)
    ]
    atomic_write(given.output, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
