"""The verb `prepare` of each package with a source that takes no time; a test gives a folder and, perhaps, a root."""

import csv
import os
from itertools import islice

from lit_core.corpora import Austen, TextFolder


def passages(count):
    return [document.text[:300] for document in islice(Austen().documents(), count)]


def verb(prepare, root, **arguments):
    """Return a function that prepares, or only compares what is there."""
    return lambda verify=False: prepare(root, verify=True) if verify else prepare(root, **arguments)


def moe(place, root=None):
    from lit_core.prepare import prepare

    (place / "prose").mkdir(exist_ok=True)
    for number, text in enumerate(passages(8)):
        (place / "prose" / f"{number}.txt").write_text(text)
        os.utime(place / "prose" / f"{number}.txt", (0, 0))
    corpora = [TextFolder(str(place / "prose"), "prose")]
    return verb(prepare, root or str(place / "root"), corpora=corpora, tokenizer="bytes", test_fraction=0.2)


def detect(place, root=None):
    from lit_detect.data.prepare import prepare
    from lit_detect.formats import TextTable

    with (place / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, i % 2) for i, text in enumerate(passages(40)))])
    os.utime(place / "texts.csv", (0, 0))
    source = TextTable("twins", str(place / "texts.csv"))
    return verb(prepare, root or str(place / "root"), sources=[source], val_fraction=0.2, test_fraction=0.2)


def valuation(place, root=None):
    from lit_valuation.commands.divide import divide
    from lit_valuation.data.division import Division, Owner
    from lit_valuation.sources import Digits

    division = Division(train=20, val=10, test=10, evaluation_useful=0.0, owners={"one": Owner()}, owner_samples=20)
    return verb(divide, root or str(place / "root"), source=Digits(), division=division)


def own(place, root=None):
    from lit_valuation.commands.prepare import prepare
    from lit_valuation.sources import SklearnTable

    return verb(prepare, root or str(place / "root"), source=SklearnTable("iris"))


#: By package, and for a second verb of one package with its name.
PREPARES = {"lit_moe": moe, "lit_detect": detect, "lit_valuation": own, "lit_valuation divide": valuation}
