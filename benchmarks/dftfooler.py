"""DFTFooler beside a straightforward implementation of its released loop: time per document, same model, same edits.

    python benchmarks/dftfooler.py --rounds 6 --output docs/results/dftfooler.json

writes the page dftfooler.md beside the numbers. A round is a document that the model itself wrote after the beginning
of a chapter of Austen; all ways attack it with the same language model, synonyms, tagger and sentence encoder.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from published_dftfooler import Published, causal_reader
from report import conditions
from side_by_side import OtherWork, arguments, finish, markdown, new_result, progress

from lit_core.corpora import Austen
from lit_core.files.paths import atomic_write
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.attacks import DFTFooler
from lit_detect.language.similarity import SentenceSimilarity, Similarity, WordOverlap
from lit_detect.language.synonyms import Synonyms
from lit_detect.language.word_vectors import WordVectors
from lit_detect.language.wordnet import EmbeddedSynonyms

OURS, PUBLISHED, MENDED = "ours, faithful", "published loop", "ours, mended"
AIM = 10
PROMPT_CHARACTERS, NEW_TOKENS = 200, 200


def real_parts() -> tuple[HuggingFaceLM, Synonyms, Similarity]:
    """Return SmolLM2, GloVe and MiniLM."""
    from lit_core.lm.pretrained import smollm2

    return smollm2(), WordVectors(), SentenceSimilarity()


def tiny_parts() -> tuple[HuggingFaceLM, Synonyms, Similarity]:
    """Return a random model and what is shipped, to see that everything works."""
    from transformers import GPT2Config, GPT2LMHeadModel

    text = next(iter(Austen().documents())).text
    tokenizer = Tokenizer.train_bpe([text], 600)
    sizes = {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "n_positions": 256,
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 2,
        "vocab_size": tokenizer.vocab_size,
    }
    return HuggingFaceLM(GPT2LMHeadModel(GPT2Config(**sizes)).eval(), tokenizer), EmbeddedSynonyms(), WordOverlap()


def documents(model: HuggingFaceLM, count: int, new_tokens: int) -> list[str]:
    """Return texts that begin like chapters of Austen and go on as the model likes."""
    chapters = [document.text for _, document in zip(range(count), Austen().documents(), strict=False)]
    prompts = [chapter.split("\n\n", 1)[-1][:PROMPT_CHARACTERS].rsplit(" ", 1)[0] for chapter in chapters]
    written = model.generate(prompts, max_new_tokens=new_tokens, seed=0, stop_at_end=False)
    return [" ".join((prompt + new).split()) for prompt, new in zip(prompts, written, strict=True)]


def timed(attack: Callable[[str], str], text: str) -> tuple[float, str]:
    """Return the seconds that an attack took, and the attacked text."""
    start = time.perf_counter()
    found = attack(text)
    return time.perf_counter() - start, found


def compare(quick: bool, rounds: int) -> dict[str, Any]:
    """Attack each document in each way, in turns of changing order."""
    model, synonyms, similarity = tiny_parts() if quick else real_parts()
    faithful = DFTFooler(model, synonyms, similarity=similarity, faithful=True)
    mended = DFTFooler(model, synonyms, similarity=similarity)
    reader = causal_reader(model.module, model.tokenizer.encode, model.tokenizer.end_of_text)
    published = Published(reader, synonyms, faithful.tagger, lambda a, b: float(similarity(a, [b])[0]))
    ways: dict[str, Callable[[str], str]] = {
        OURS: lambda text: faithful(text, 0).text,
        PUBLISHED: published,
        MENDED: lambda text: mended(text, 0).text,
    }
    progress("writing the documents")
    texts = documents(model, rounds + 1, 30 if quick else NEW_TOKENS)
    for attack in (ways[OURS], ways[MENDED]):  # loads and warms up, and looks up words
        attack(texts[-1])
    others, found = OtherWork(), []
    for number, text in enumerate(texts[:-1]):
        order = list(ways) if number % 2 else list(reversed(ways))
        runs = {}
        for name in order:
            progress(f"document {number + 1} of {rounds}: {name}")
            runs[name] = timed(ways[name], text)
        found.append(
            {
                "words": len(text.split()),
                "seconds": {name: seconds for name, (seconds, _) in runs.items()},
                "same": runs[OURS][1] == runs[PUBLISHED][1],
                "changed": sum(a != b for a, b in zip(text.split(), runs[OURS][1].split(), strict=True)),
            }
        )
    names = {"model": faithful.name, "synonyms": synonyms.name, "similarity": similarity.name}
    return {**names, "documents": found, "cores_busy_with_others": others.cores()}


def page(result: dict[str, Any]) -> str:
    """Return the page dftfooler.md."""
    case = result["cases"][0]
    found = case["documents"]
    rows = []
    for name in (OURS, PUBLISHED, MENDED):
        seconds = [one["seconds"][name] for one in found]
        ratio = statistics.median(one["seconds"][name] / one["seconds"][OURS] for one in found)
        rows.append(
            [name, f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}–{max(seconds):.2f}", f"{ratio:.1f}"]
        )
    ratio = statistics.median(one["seconds"][PUBLISHED] / one["seconds"][OURS] for one in found)
    same = sum(one["same"] for one in found)
    words = statistics.median(one["words"] for one in found)
    changed = statistics.median(one["changed"] for one in found)
    return f"""# DFTFooler

{len(found)} documents of {words:.0f} words (median) that the attacking model itself wrote, {changed:.0f} words replaced
(median). {case["model"]}; {case["synonyms"]}; {case["similarity"]}, whose threshold of 0.7 is that of the published
code, though under another encoder.

{markdown(["", "seconds per document", "range", "× ours, faithful"], rows)}

*Published loop*: a straightforward implementation of the released one, a forward pass for the window of each synonym
and one for each sentence compared. The attacked text is the same in {same} of {len(found)} documents. The aim of {AIM}
times faster is {"met" if ratio >= AIM else "not met"} ({ratio:.1f}).

Where the time goes: all synonyms of a word share one distribution of the language model, 8 words share a forward pass,
and sentences are encoded from the least likely synonym on until one passes. *Mended* reads whole words, so synonyms of
several tokens need a further pass.

{conditions(result)}
"""


def main() -> None:
    """Compare, write the numbers and the page."""
    options = arguments(__doc__)
    result = new_result("dftfooler", options, ("torch", "transformers", "numpy"))
    result["warm_up"] = 1
    result["cases"].append(compare(options.quick, result["rounds"]))
    finish(result, options.output)
    text = page(result)
    print(text)
    if options.output:
        atomic_write(Path(options.output).with_name("dftfooler.md"), text)


if __name__ == "__main__":
    main()
