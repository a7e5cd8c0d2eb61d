"""Works with the installed packages in the working directory, which is empty; `tools/matrix.py` starts it.

    python matrix_work.py '["hf", "plot"]'

The argument lists the extras that are installed. Commands that need another one must end in an error that names it.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
import sys
import sysconfig
import zipfile
from pathlib import Path

#: Commands in order, the extras of which one is enough for them, and what their output shows.
WORK: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("lit-moe prepare --config moe.yaml", (), "own"),
    (
        "lit-moe fit --config moe/quickstart/pretrain.yaml --config own.yaml --run moe",
        (),
        "runs/moe/moe",
    ),
    ("lit-moe test --ckpt_path runs/moe/moe/checkpoints/last.ckpt", (), "bits/byte"),
    ("lit-moe export --ckpt_path runs/moe/moe/checkpoints/last.ckpt --output exported", ("hf",), "exported"),
    ("lit-valuation divide --config valuation/divide/digits.yaml", ("valuation", "detect"), "owner"),
    ("lit-valuation divide --config valuation.yaml", (), "table"),
    (
        "lit-valuation fit --config valuation/quickstart/own.yaml --data.root table --trainer.max_steps 20 "
        "--trainer.val_check_interval 20 --trainer.callbacks [] --run valuation",
        (),
        "runs/valuation/valuation",
    ),
    ("lit-valuation test --ckpt_path runs/valuation/valuation/checkpoints/last.ckpt", (), "accuracy"),
    (
        "lit-detect fit --config detect/fit/texts.yaml --config detect/quickstart/gltr.yaml --config detect.yaml "
        "--model.detector.language_model.path runs/moe/moe/checkpoints/last.ckpt --run detect",
        ("detect", "valuation"),
        "runs/detect/detect",
    ),
    (
        "lit-detect attack --config detect/attack/article_deletion.yaml --input essay.docx --labels both "
        "--output attacked.jsonl",
        ("documents",),
        "ArticleDeletion",
    ),
    ("lit-detect test --ckpt_path runs/detect/detect/checkpoints/last.ckpt", ("detect", "valuation"), "called machine"),
)

MOE = """
root: own
vocab_size: 300
corpora: [{class_path: TextFolder, init_args: {folder: own, name: own}}]
"""
RUN = """
data:
  init_args: {root: own, sources: {own: 1}, validation: [own], validation_samples: 4}
trainer: {max_steps: 2, val_check_interval: 2}
"""
VALUATION = """
root: table
source: {class_path: Table, init_args: {name: mine, path: table.csv, label: kind, group: place}}
division: {hard: [c], train: 60, val: 40, test: 40, owner_samples: 12, evaluation_useful: 0.2}
"""
DETECT = """
data:
  init_args:
    root: texts
    sources: [{class_path: TextTable, init_args: {name: mine, path: texts.csv}}]
    train: [mine]
    test: [mine]
"""
#: The parts of a .docx with a paragraph.
DOCX = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
    'Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override '
    'PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.'
    'document.main+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    'Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>',
    "word/document.xml": '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    "<w:p><w:r><w:t>The cat sat on the mat.</w:t></w:r></w:p></w:body></w:document>",
}


def main() -> None:
    """Run the commands, and print which did not do what they should."""
    installed = json.loads(sys.argv[1])
    os.environ["LITSHIFT_DATA"] = str(Path("data").resolve())
    prepare()
    faults = []
    for command, extras, shows in WORK:
        program, *arguments = command.split()
        package = importlib.import_module(f"{program.replace('-', '_')}.cli")
        origin = Path(package.__file__).resolve()
        if not origin.is_relative_to(Path(sysconfig.get_paths()["purelib"]).resolve()):
            faults.append(f"{program} is imported from {origin}, not from the installed wheel")
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = package.main(arguments)
        text, missing = output.getvalue(), [] if set(extras) & set(installed) else extras
        if missing:  # what an earlier command could not write is not there
            works = code != 0 and (f"lit-shift[{missing[0]}]" in text or "there is no such file" in text)
        else:
            works = code == 0 and shows in text
        print("ok   " if works else "FAULT", command, f"[needs {missing[0]}]" if missing else "", flush=True)
        if not works:
            faults.append(f"{command} ended with {code}:\n{text[-3000:]}")
    print(*faults, sep="\n")
    sys.exit(bool(faults))


def prepare() -> None:
    """Write texts and tables to work on."""
    text = Path(contextlib.__file__).read_text()
    folder = Path("own")
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(text[number * 500 : number * 500 + 4000])
    for name, config in {"moe": MOE, "own": RUN, "valuation": VALUATION, "detect": DETECT}.items():
        Path(f"{name}.yaml").write_text(config)
    rows = [f"{n},{n * n % 11},{'odd' if n * n % 5 > 1 else 'even'},{'abc'[n % 3]}" for n in range(600)]
    Path("table.csv").write_text("\n".join(["first,second,kind,place", *rows, ""]))
    with zipfile.ZipFile("essay.docx", "w") as archive:
        for name, part in DOCX.items():
            archive.writestr(name, part)
    with Path("texts.csv").open("w", newline="") as file:
        rows = [(text[number * 60 : number * 60 + 300], number % 2) for number in range(80)]
        csv.writer(file).writerows([("text", "label"), *rows])


if __name__ == "__main__":
    main()
