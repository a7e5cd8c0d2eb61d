import csv

import torch

from lit_valuation.exchange.sheet import write_sheet
from lit_valuation.samples import Samples


def test_a_table_becomes_a_csv(tmp_path):
    x = torch.tensor([[1.5, 2.0], [3.0, 4.25]])
    rows = Samples(x, torch.tensor([1, 0]), ("calm", "attack"), ("r1", "r2"))
    with write_sheet(tmp_path / "answer", rows, rows.keys, ["bytes", "packets"]).open() as file:
        read = list(csv.DictReader(file))
    assert read[0] == {"name": "r1", "class": "attack", "bytes": "1.5", "packets": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["answer.csv"]
