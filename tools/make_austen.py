"""Make ``lit_core/corpora/embedded/austen.jsonl.xz`` from Debian's package of Jane Austen's six novels.

Run it from a checkout with the folder into which ``dpkg-deb -x r-cran-janeaustenr_*.deb FOLDER`` unpacked the package:
``python tools/make_austen.py FOLDER``. It needs ``rdata`` (``pip install -e ".[dev]"``).
Each line of the result is a chapter: ``{"id": "emma/01", "text": ...}``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
import sys
import zlib
from pathlib import Path
from typing import Any

#: Novels in the order of their publication, with the number of chapters each must have.
NOVELS = {
    "sensesensibility": 50,
    "prideprejudice": 61,
    "mansfieldpark": 48,
    "emma": 55,
    "northangerabbey": 31,
    "persuasion": 24,
}
HEADING = re.compile(r"^(?=chapter (?:[ivxlc]+|\d+)\s*$)", re.IGNORECASE | re.MULTILINE)
#: What editors and printers added: volume headings, end marks, and a modern note on the text.
ADDED = re.compile(
    r"^A NOTE ON THE TEXT$.*\Z|^VOLUME [IVX]+$|^(?:FINIS|THE END)$"
    r"|^ *\[(?:End volume|At this point in the first)[^\]]*\]$",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


def read_novels(package: Path) -> dict[str, str]:
    """Read the R data of the unpacked package: text of each novel by name."""
    import rdata

    def parse(content: bytes) -> Any:  # R values have no common type
        return rdata.conversion.convert(rdata.parser.parse_data(content))

    data = package / "usr/lib/R/site-library/janeaustenr/data"
    variables = parse(gzip.decompress((data / "Rdata.rdx").read_bytes()))["variables"]
    chunks = (data / "Rdata.rdb").read_bytes()
    novels = {}
    for name in NOVELS:
        offset, length = (int(number) for number in variables[name])
        # A chunk is the size of its content as four bytes, then the content compressed.
        lines = parse(zlib.decompress(chunks[offset + 4 : offset + length]))
        novels[name] = "\n".join(str(line).rstrip() for line in lines)
    return novels


def chapters(novel: str) -> list[str]:
    """Split a novel at its chapter headings; what stands before the first is title and advertisement."""
    found = HEADING.split(novel)[1:]
    return [re.sub(r"\n{3,}", "\n\n", ADDED.sub("", chapter)).strip() + "\n" for chapter in found]


def main() -> None:
    """Write the shipped file and print its hash."""
    lines = []
    for name, novel in read_novels(Path(sys.argv[1])).items():
        found = chapters(novel)
        assert len(found) == NOVELS[name], (name, len(found))
        for number, text in enumerate(found, 1):
            lines.append(json.dumps({"id": f"{name}/{number:02}", "text": text}, ensure_ascii=False))
    content = ("\n".join(lines) + "\n").encode()
    target = Path(__file__).parents[1] / "lit_core" / "corpora" / "embedded" / "austen.jsonl.xz"
    target.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(f"{target}: {len(lines)} chapters, {target.stat().st_size} bytes")
    print(f"SHA-256 of the decompressed file: {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
