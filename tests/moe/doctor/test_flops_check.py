"""The check of FLOPs finds each kind of mixture counted, and what is not known said."""

import pytest

pytest.importorskip("transformers")

from lit_moe.doctor.checks.flops import check
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen


@pytest.mark.parametrize("kind", ["gpt_oss", "llama4_text", "jetmoe"])
def test_experts_are_counted_as_they_are_used(kind):
    assert check(Specimen(small_config(kind), seed=1)).verdict == "pass"


def test_experts_that_compute_nothing_are_said():
    finding = check(Specimen(small_config("longcat_flash"), seed=1))
    assert (finding.verdict, "experts that compute nothing" in finding.reason) == ("refused", True)
