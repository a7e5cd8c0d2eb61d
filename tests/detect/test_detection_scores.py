"""DetectionScores over batches and two processes, against the functions on the whole set."""

import json
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_core.errors import UserError
from lit_detect.functional.conformal import expected_fpr, threshold_at_fpr
from lit_detect.functional.threshold import auroc
from lit_detect.metrics import DetectionScores, breakdown, scores_of
from lit_detect.records import Record, condition, key_part


def texts(n=101, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    scores = (torch.randn(n, generator=generator, dtype=torch.float64) + labels).mul(4).round().div(4)  # with ties
    return scores, labels


def whole(threshold=0.25):
    scores, labels = texts()
    metric = DetectionScores(threshold=0.25)
    metric.update(scores, labels, torch.arange(len(scores)))
    return metric.compute()


def test_the_values_are_those_of_the_functions():
    scores, labels = texts()
    values = whole()
    human, machine = scores[labels == 0], scores[labels == 1]
    assert float(values["auroc"]) == pytest.approx(auroc(human, machine))
    threshold = threshold_at_fpr(human, 0.05)
    assert float(values["tpr_at_fpr_05"]) == pytest.approx(float((machine >= threshold).double().mean()))
    assert float(values["achieved_fpr_05"]) == pytest.approx(expected_fpr(human, threshold))
    assert float(values["recall/machine"]) == pytest.approx(float((machine >= 0.25).double().mean()))
    assert float(values["recall/human"]) == pytest.approx(float((human < 0.25).double().mean()))
    kinds = {f"{kind}/{name}" for kind in ("precision", "recall", "f1") for name in ("human", "machine")}
    rates = {"tpr_at_fpr_05", "achieved_fpr_05"}  # the others need 99 human texts
    assert set(values) == {"auroc", "accuracy"} | kinds | rates


@pytest.mark.parametrize(("n", "rates"), [(18, 0), (19, 1), (98, 1), (99, 2)])
def test_a_rate_that_the_human_texts_are_too_few_for_is_left_out(n, rates):
    values = scores_of(torch.arange(n), torch.tensor([n, n + 1]), threshold=0.0)
    assert [values[f"tpr_at_fpr_{name}"] for name in ("05", "01")[:rates]] == [1.0] * rates
    assert sum("fpr" in name for name in values) == 2 * rates


def test_padding_repeats_unknown_labels_and_order_change_nothing():
    scores, labels = texts()
    index = torch.arange(len(scores))
    shuffle = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    metric = DetectionScores(threshold=0.25)
    for rows in shuffle.split(7):
        metric.update(scores[rows], labels[rows], index[rows])
    metric.update(scores[:3], labels[:3], index[:3])  # again
    metric.update(torch.full((3,), math.nan), torch.tensor([0, 1, 0]), torch.full((3,), -1))
    metric.update(torch.tensor([1e9]), torch.tensor([-1]), torch.tensor([500]))
    assert metric.compute() == whole()
    assert torch.equal(metric.gathered()[0], scores) and torch.equal(metric.gathered()[2], index)


def _rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    scores, labels = texts()
    metric = DetectionScores(threshold=0.25)
    index = torch.arange(rank, 102, 2)
    real = torch.where(index < 101, index, -1)  # rank 1 has a row less, and fills up
    if rank:  # one more batch, of nothing but filling
        metric.update(scores[:2], labels[:2], torch.tensor([-1, -1]))
    metric.update(scores[index.clamp(max=100)], labels[index.clamp(max=100)], real)
    values = {name: float(value) for name, value in metric.compute().items()}
    kept, _, numbers = metric.gathered()
    assert torch.equal(kept, scores) and torch.equal(numbers, torch.arange(101))
    (folder / f"{rank}.json").write_text(json.dumps(values))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.spawn(_rank, (tmp_path,), nprocs=2)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1] == {name: float(value) for name, value in whole().items()}


def rows(*columns):
    kinds = ("label", "domain", "source", "attack", "score")
    found = [dict(zip(kinds, column, strict=True)) for column in columns]
    scores = torch.tensor([row.pop("score") for row in found], dtype=torch.float64)
    records = [Record(str(number), "", **row) for number, row in enumerate(found)]
    return scores, torch.tensor([record.label for record in records]), torch.arange(len(records)), records


def test_breakdown_fixes_thresholds_on_clean_human_texts_of_the_domain():
    scores, labels, index, records = rows(
        *[(0, "news", "human", "", 0.0)] * 18,  # 19 human texts have a threshold at 5 %
        (0, "news", "human", "", 1.0),
        (0, "news", "human", "swap", 9.0),
        (1, "news", "a b", "", 2.0),
        (1, "news", "a b", "swap", 0.5),
        *[(0, "verse", "human", "", 5.0)] * 18,
        (0, "verse", "human", "", 6.0),
        (1, "verse", "c", "", 5.5),
        (1, "verse", "c", "", 7.0),
    )
    values = breakdown(scores, labels, index, records, threshold=1.0)
    assert values["domain/news/tpr_at_fpr_05"] == 0.5  # above 1, whatever the attacked human text and the verse score
    assert values["domain/verse/tpr_at_fpr_05"] == 0.5
    assert values["domain/verse/auroc"] == pytest.approx((18 + 19) / 38)
    assert values["domain/news/recall/machine"] == 0.5 and values["domain/news/recall/human"] == 18 / 19
    assert values["generator/a_b/tpr_at_fpr_05"] == 0  # nothing above 6
    assert values["generator/c/tpr_at_fpr_05"] == 0.5
    assert values["attack/none/auroc"] == pytest.approx((19 + 37 + 38) / 3 / 38)
    assert values["attack/swap/recall/machine"] == 0
    assert values["tpr_at_fpr_05"] == 0.25 and values["achieved_fpr_05"] == 1 / 39
    assert not any(name.startswith(("decoding/", "priming/")) for name in values)
    assert "generator/c/recall/human" not in values


def test_a_small_condition_whose_scores_tie_ends_nothing():
    scores, labels, index, records = rows(
        (0, "news", "human", "", 0.0),
        (1, "news", "a", "", 2.0),
        (0, "verse", "human", "", 7.0),
        (1, "verse", "b", "", 7.0),
    )
    values = breakdown(scores, labels, index, records, threshold=1.0)
    assert values["domain/verse/auroc"] == 0.5 and values["domain/news/auroc"] == 1


def test_conditions_have_names():
    record = Record("1", "", decoding={"top_p": None, "top_k": 40, "temperature": 0.7, "priming_tokens": 8, "seed": 1})
    assert condition(record, "decoding") == "temperature=0.7,top_k=40"
    assert condition(record, "priming") == "8"
    assert condition(record, "attack") == condition(record, "language") == condition(record, "domain") == "none"
    assert condition(Record("1", "", meta={"language": "de"}), "language") == "de"
    assert key_part("Homoglyph[every 3/4]") == "Homoglyph[every_3_4]"


def test_what_a_missing_class_leaves():
    metric = DetectionScores(threshold=0.25)
    metric.update(torch.tensor([1.0, -1.0]), torch.tensor([1, 1]), torch.arange(2))
    values = metric.compute()
    assert float(values["recall/machine"]) == 0.5
    assert "auroc" not in values and "recall/human" not in values


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_constant_scores_are_refused(bad):
    metric = DetectionScores(threshold=0.25)
    metric.update(torch.tensor([1.0, bad]), torch.tensor([1, 1]), torch.arange(2))
    with pytest.raises(UserError, match="1 of 2 are not finite"):
        metric.compute()
    metric = DetectionScores(threshold=0.25)
    metric.update(torch.ones(4), torch.tensor([0, 1, 0, 1]), torch.arange(4))
    with pytest.raises(UserError, match="all 4 are 1"):
        metric.compute()
