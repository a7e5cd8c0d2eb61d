"""The measurements behind docs/results/mixtures_before_after.md: former rules have the faults, the present code not."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import mixtures_before_after as page

from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen


def measured(family):
    """The faults that a family has by the former rules, and those that it has now."""
    specimen = Specimen(small_config(family), 0)
    decoder = specimen.decoder()
    found = {each.measure.__name__: each.measure(decoder, specimen) for each in page.SHARED}
    now = {after for _, after in found.values()} - {"pass", "n/a"}
    return [name for name, (before, _) in found.items() if before], now


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_former_rules_have_the_faults_of_the_families_that_a_trial_named():
    assert measured("mixtral") == ([], set())
    assert measured("gpt_oss") == (["documents", "gates"], set())
    assert measured("nemotron_h") == (["documents", "gates", "selection_bias", "config_again"], set())
    assert measured("deepseek_v32") == (["gates", "selection_bias", "gradients"], set())
    assert measured("zaya") == (["documents", "gates", "selection_bias", "float32"], {"refused"})


def test_counts_losses_and_gradients_are_whole_now_and_were_not():
    for former, now in (page.llama_gradient(), page.afmoe_counts()):
        assert former < 0.9 and now == pytest.approx(1, abs=1e-5)
    former, now = page.longcat_loss()
    assert former == 0 < now


def test_a_text_after_its_own_begin_is_predicted_better():
    former, now = page.begin_losses(steps=60)
    assert now < former


def test_published_shapes_are_counted_as_by_hand():
    rows = list(page.flops())
    assert len(rows) == 6 and all(by_hand == counted for _, by_hand, counted, *_ in rows)
    assert all(float(ratio) > 3 for *_, ratio, _ in rows)


@pytest.mark.filterwarnings("ignore")
def test_a_page_has_a_row_for_each_fault(monkeypatch):
    monkeypatch.setattr(page, "single", lambda: iter([["measured", "1", "2", "3"]]))
    monkeypatch.setattr(page, "flops", lambda: iter([["shape", "1", "1", "2", "0", "2", ""]]))
    lines = page.page(["mixtral"])
    assert [line for line in lines if line.startswith("| the selection bias")] == [
        "| the selection bias is never moved | 29 of 57 | it is left alone | 0 of 1 | 1 n/a |"
    ]
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(page.SHARED) + 3 + 3
