"""A data root and a finished run that tests may damage; pictures stay blank where a test is not about them."""

import shutil
import tempfile
from pathlib import Path

import pytest
from bad_input import PREPARE, RUN, inside, write

from lit_moe.cli import main


@pytest.fixture(autouse=True, scope="module")
def blank_pictures(request):
    """Where a test is not about pictures, they are made and logged but not drawn: a fifth of a short run."""
    import numpy as np

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWN", False):
            patch.setattr("lit_core.lightning.pictures.pixels", lambda figure: np.zeros((8, 8, 3), np.uint8))
        yield


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, token_root, byte_root):
    """A data root of two tokenizers, and a working directory with one finished run."""
    place = tmp_path_factory.mktemp("pristine")
    shutil.copytree(token_root, place / "data" / "tokens")
    shutil.copytree(byte_root, place / "data" / "bytes")
    (place / "work" / "texts").mkdir(parents=True)
    for number in range(6):
        (place / "work" / "texts" / f"{number}.txt").write_text(f"This is the text number {number}.\n" * 300)
    with inside(place):
        write("run.yaml", RUN)
        write("prepare.yaml", PREPARE)
        assert main(["fit", "--config", "run.yaml", "--run", "first"]) == 0
    return place


@pytest.fixture
def place(pristine):
    # not tmp_path: the sockets of data-loading processes lie in the temporary folder, and their paths must be short
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(pristine, home, dirs_exist_ok=True)
        with inside(Path(home)) as folder:
            yield folder
