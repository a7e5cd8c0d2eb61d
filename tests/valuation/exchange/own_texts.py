"""Paragraphs of the project's own pages, as parties have them: words with tags made by a rule, and plain texts."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
WORD = re.compile(r"\w+|[^\w\s]")


def paragraphs():
    """Return the paragraphs of the pages, without tables and code."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = page.read_text().split("\n\n")
        found += [" ".join(block.split()) for block in blocks if block[:1].isalpha() and len(block) > 80]
    return list(dict.fromkeys(found))


def tag(word):
    if word[0].isdigit():
        return "NUMBER"
    return ("NAME" if word[0].isupper() else "WORD") if word[0].isalpha() else "SIGN"


def write_tagged(path, texts, words="tokens", tags="ner_tags", most=20):
    with open(path, "w") as file:
        for text in texts:
            found = WORD.findall(text)[:most]
            file.write(json.dumps({words: found, tags: [tag(word) for word in found]}) + "\n")


def write_plain(path, texts):
    with open(path, "w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def parties():
    """Return the paragraphs of a trainer and two owners."""
    found = paragraphs()
    third = len(found) // 3
    return {"trainer": found[:third], "alice": found[third : 2 * third], "bob": found[2 * third :]}
