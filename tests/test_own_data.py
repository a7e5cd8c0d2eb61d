"""The pages on the user's own data run from top to bottom as they stand there, on files of the test, in fewer steps."""

import csv
import random
import re
import shlex
from pathlib import Path

import pytest
import torch

from lit_core.corpora import Austen
from lit_detect.cli import main as detect
from lit_moe.cli import main as moe
from lit_valuation.cli import main as valuation

DOCS = Path(__file__).parents[1] / "docs"
MAIN = {"lit-detect": detect, "lit-moe": moe, "lit-valuation": valuation}
#: Arguments that make a command of a page cheaper; the rest runs as printed.
SMALLER = {
    "lit-moe prepare": ["--max_bytes", "60000", "--vocab_size", "300"],
    "lit-moe fit": ["--trainer.accelerator", "cpu", "--trainer.max_steps", "2", "--data.validation_samples", "2"],
    "lit-moe test": ["--trainer.accelerator", "cpu", "--data.test_samples", "2"],
}
PAGES = ["own_text", "own_images_and_tables", "own_texts_to_judge"]


def passages():
    return [text for document in Austen().documents() for text in document.text.split("\n\n") if len(text) > 600][:400]


def own_text():
    for number, text in enumerate(passages()):
        path = Path(f"notes/{number % 7}/{number}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.upper())
    Path("letters").mkdir()
    for number, text in enumerate(passages()):
        Path(f"letters/{number}.txt").write_text(text[::-1])


def own_images_and_tables():
    from PIL import Image
    from sklearn.datasets import load_breast_cancer, load_digits

    patients = load_breast_cancer()
    rows = [
        [index, *values[:10].round(4), ("malignant", "benign")[label], ("north", "south", "east")[index % 3]]
        for index, (values, label) in enumerate(zip(patients.data, patients.target, strict=True))
    ]
    header = ["id", *(name.replace(" ", "_") for name in patients.feature_names[:10]), "diagnosis", "clinic"]
    write_table("raw.csv", header, rows)
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label in (0, 1, 7):
            path = Path("signs", f"sign_{label}", "day" if index % 3 else "night", f"{index:04}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15).astype("uint8")).resize((24, 20)).save(path)


def own_texts_to_judge():
    human = passages()
    shuffled = [" ".join(random.Random(0).sample(text.split(), len(text.split()))) for text in human[:240]]
    reviews = [[text, "person"] for text in human[:240]] + [[text, "chatbot"] for text in shuffled]
    write_table("reviews.csv", ["review", "author"], reviews)
    write_table("more_human.csv", ["text"], [[text] for text in human[240:]])
    write_table("inbox.csv", ["text"], [[human[0]], [shuffled[0]]])


def write_table(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.mark.slow  # a minute in all
@pytest.mark.parametrize("page", PAGES)
def test_each_block_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    globals()[page]()
    blocks = re.findall(r"```(yaml|bash|python)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert {kind for kind, _ in blocks} == {"yaml", "bash", "python"}
    names = {"__name__": page}
    with torch.random.fork_rng():
        for kind, block in blocks:
            if kind == "yaml":  # its first line names the file
                Path(block.partition("\n")[0].removeprefix("# ")).write_text(block)
            elif kind == "python":
                exec(compile(block, page, "exec"), names)
            for line in block.replace("\\\n", " ").splitlines() if kind == "bash" else []:
                program, verb, *arguments = shlex.split(line)
                assert MAIN[program]([verb, *arguments, *SMALLER.get(f"{program} {verb}", [])]) == 0, line
