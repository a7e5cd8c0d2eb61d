"""The walk of docs/valuation.md: a trainer and two owners in three folders, each with files of its own kind."""

import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lit_valuation.cli import main
from lit_valuation.data.labelled_sets import LabelledSet

PAGE = (Path(__file__).parents[3] / "docs/valuation.md").read_text()
WALK = PAGE[PAGE.index("## How do organisations do it") : PAGE.index("### What can I prepare?")]
#: Each class as the trainer, the north and the south name it.
NAMES = {3: ("three", "3", "drei"), 5: ("five", "5", "fuenf"), 8: ("eight", "8", "acht")}


def saved(image, *place, **options):
    path = Path(*place)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def transparent(ink):
    return Image.merge("LA", (Image.new("L", ink.shape), Image.fromarray(ink)))


@pytest.fixture
def parties(tmp_path, monkeypatch):
    """By day signs are dark on light, by night light on dark; the trainer trains on those of the day."""
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    rows = [i for i, target in enumerate(digits.target) if target in NAMES]
    grain = np.random.default_rng(0)  # of a camera, so that no two pictures are near copies
    ink = {i: np.kron(digits.images[i], np.ones((3, 3))) * 10 + grain.uniform(0, 90, (24, 24)) for i in rows}
    ink = {i: values.astype(np.uint8) for i, values in ink.items()}
    kind = {i: NAMES[digits.target[i]] for i in rows}
    for i in rows[:150]:
        saved(transparent(ink[i]), "trainer/signs", kind[i][0], f"{i}.png")
    for i in rows[150:280]:
        picture = Image.fromarray(ink[i]) if i % 2 else transparent(ink[i])
        saved(picture, "trainer/new", kind[i][0], f"{i}.png")
    Path("north/shards").mkdir(parents=True)
    with tarfile.open("north/shards/0.tar", "w") as shard:
        for i in rows[280:400]:
            content = io.BytesIO()
            Image.fromarray(ink[i] if i % 4 else 255 - ink[i]).save(content, "JPEG", quality=95)
            for name, data in ((f"{i:05d}.jpg", content.getvalue()), (f"{i:05d}.cls", kind[i][1].encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    for i in rows[400:]:
        saved(Image.fromarray((255 - ink[i]).astype(np.uint16) * 16), "south/schilder", kind[i][2], f"{i}.tif")
    lines = "".join(f"{names[1]},{names[0]}\n" for names in NAMES.values())
    Path("north/classes.csv").write_text(f"class,shared\n{lines}")
    Path("south/classes.csv").write_text(re.search(r"```text\n(class,shared\n.*?)```", WALK, re.DOTALL)[1])
    return tmp_path


@pytest.mark.slow  # six trainings and eleven commands, as the page has them
def test_three_organisations_exchange_what_each_has(parties, monkeypatch, capsys):
    blocks = re.findall(r"```bash\n(.*?)```", WALK, re.DOTALL)
    for party, block in zip(("trainer", "north", "south", "trainer"), blocks, strict=True):
        monkeypatch.chdir(parties / party)
        for line in block.replace("\\\n", " ").strip().splitlines():
            program, *arguments = shlex.split(line)
            if program == "cp":
                shutil.copytree(*arguments[1:])
            else:
                assert program == "lit-valuation" and main(arguments) == 0, (line, capsys.readouterr().err)
    ranking = Path("ranking/ranking.csv").read_text()
    assert re.search("north", ranking) and re.search("south", ranking)

    for folder in ("trainer", "north", "south"):  # all see signs that are dark on light, or light on dark, in 16 x 16
        shared = LabelledSet(parties / folder / "prepared" / "train")
        assert (shared.kind, shared.shape, set(shared.classes)) == ("image", (1, 16, 16), {"three", "five", "eight"})
        brightness = shared.load().inputs().flatten(1).median(1).values
        assert folder == "north" or (brightness > 0.5).all()
    with Image.open(parties / "trainer" / "query.png") as sheet:
        assert sheet.width > 200

    sent = b"".join(
        path.read_bytes() for place in ("query", "from_north", "from_south") for path in Path(place).iterdir()
    )
    own = [b"drei", b"fuenf", b"acht", b"schilder", b".tif", b"north", b"south", str(parties).encode()]
    assert not [name for name in own if name in sent]
    for party in ("north", "south"):
        (parties / party / "prepared" / "ledger.jsonl").read_text()
