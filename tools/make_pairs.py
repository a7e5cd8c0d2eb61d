"""Make ``pairs.jsonl.xz`` and ``wild.jsonl.xz`` with SmolLM2 and the generators of ``make_generators.py``.

Run from a checkout, ``python tools/make_pairs.py [FOLDER]`` generates into a folder, by default below the data root,
resumes there after a kill, and writes both files to ``lit_detect/embedded``. It takes about half an hour on two cores.
A pair is left out where the generator wrote too few words, or words that do not belong into a package.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from make_generators import folder

from lit_core.corpora import AnarchistFAQ, Austen, DebianHandbook
from lit_core.files.paths import data_root
from lit_core.lm.language_model import HuggingFaceLM, LanguageModel
from lit_core.lm.pretrained import smollm2, smollm2_folder
from lit_detect.formats.litshift import read_records
from lit_detect.generation.generate import Decoding, generate, with_prefix
from lit_detect.generation.leak import leak_table
from lit_detect.generation.ngram_model import train_ngram
from lit_detect.generation.passages import clean
from lit_detect.records import MACHINE, Record

#: True names of the generators.
NAMES = {
    "smollm2": "SmolLM2-135M-Instruct",
    "fewer_layers": "SmolLM2-135M-Instruct[27 of 30 layers]",
    "continued": "SmolLM2-135M-Instruct[continued on the anarchism FAQ]",
    "scratch": "Llama[3 layers, from scratch]",
    "ngram": "NGramLM[order 4]",
}
#: Passages of each corpus that are generated from.
ASKED = {"train": 104, "val": 25, "test": 64}
#: Beginnings of words that do not belong into a package.
_UNFIT = re.compile(
    r"\b(?:nigg|fuck|shit|cunt|dick\b|penis|vagin|porn|rape|rap(?:ing|ists?)\b|whore|slut|bitch|fag|cock\b|negro|orgasm|masturb|sex"
    r"|genital|erotic|naked|suicid|pedoph|nazi|hitler|jew|murder|slaughter|tortur|retard|breast)",
    re.IGNORECASE,
)


def load(name: str) -> LanguageModel:
    """Return a generator."""
    if name == "smollm2":
        return smollm2(dtype="bfloat16")
    if name == "ngram":
        return train_ngram([Austen(), DebianHandbook(), AnarchistFAQ()], str(smollm2_folder()), order=4)
    return HuggingFaceLM.from_pretrained(str(folder(name)), dtype="float32" if name == "scratch" else "bfloat16")


def write(name: str, work: Path) -> list[Record]:
    """Generate with one generator, unless that is done."""
    path = work / f"{name}.jsonl"
    if not path.exists():
        counts = ASKED if name == "smollm2" else {"train": 0, "val": 0, "test": ASKED["test"]}
        generate(
            output=str(path),
            corpora=[Austen(), DebianHandbook()],
            language_model=load(name),
            name=NAMES[name],
            decodings=[Decoding("pure")],
            priming_tokens=[24],
            tokenizer=str(smollm2_folder()),
            batch_size=48,
            train=counts["train"],
            val=counts["val"],
            test=counts["test"],
        )
    return list(read_records(path))


def fit(records: Sequence[Record]) -> list[Record]:
    """Return the pairs that are whole and whose machine text is fit for a package."""
    done = {record.meta["passage"] for record in records if record.label == MACHINE}
    unfit = {
        record.meta["passage"]
        for record in records
        if clean(record.text) != record.text or (record.label == MACHINE and _UNFIT.search(with_prefix(record)))
    }
    return [record for record in records if record.meta["passage"] in done - unfit]


def save(name: str, rows: Sequence[dict[str, object]]) -> None:
    """Write a shipped file and print its hash."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    target = Path(__file__).parents[1] / "lit_detect" / "embedded" / name
    target.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(
        f'    "{name}": "{hashlib.sha256(content).hexdigest()}",  # {len(rows)} records, {target.stat().st_size} bytes'
    )


def main() -> None:
    """Generate, choose and write."""
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else data_root() / "detect" / "embedded"
    found = {name: fit(write(name, work)) for name in NAMES}
    save("pairs.jsonl.xz", [record.to_dict() for record in found["smollm2"]])
    wild = [
        record.to_dict() | {"meta": {**record.meta, "wild": name}}
        for name in NAMES
        if name != "smollm2"
        for record in found[name]
    ]
    save("wild.jsonl.xz", wild)
    for part in found.values():
        print(Counter((record.domain, record.split) for record in part if record.label == MACHINE))
        print(leak_table(part))


if __name__ == "__main__":
    main()
