"""A trainer and owners with real digits, a checkpoint each, and a query with honest answers."""

import shutil
from pathlib import Path

import pytest
from crossing import SHORT, answer, ask

from lit_valuation.cli import main


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """What is shared by the tests of this folder and not to be changed: data, checkpoints, a query and its answers."""
    folder = tmp_path_factory.mktemp("exchange")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["divide", "--config", "configs/valuation/divide/digits.yaml", "--root", str(folder / "data")]) == 0
        Path("short.yaml").write_text(SHORT)
        for party in ("trainer", "owner_1"):
            assert main(["fit", "--config", "short.yaml", "--data.init_args.party", party, "--run", party]) == 0
        ask(folder)
        for number in (1, 5):
            answer(folder, number)
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"
