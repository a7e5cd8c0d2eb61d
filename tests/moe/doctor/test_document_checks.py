"""The checks of documents, padding and generation pass where all is right, and fail where what they check is undone."""

import pytest
import torch

from lit_core.lm import decoding
from lit_core.lm.language_model import HuggingFaceLM
from lit_moe.doctor.checks import documents, generation, padding
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import hf_documents

pytest.importorskip("transformers")


def specimen(kind):
    return Specimen(small_config(kind), seed=0)


def test_documents_are_isolated_and_a_leak_is_a_failure(monkeypatch):
    assert documents.check(specimen("gpt_oss")).verdict == "pass"
    monkeypatch.setattr(hf_documents.Documents, "_way", lambda *_: hf_documents._positions)
    finding = documents.check(specimen("gpt_oss"))
    assert finding.verdict == "fail" and "those of it alone" in finding.reason


def test_padding_is_ignored_and_what_it_changes_is_a_failure(monkeypatch):
    assert padding.check(specimen("jamba")).verdict == "pass"
    monkeypatch.setattr(hf_documents.Documents, "_way", lambda *_: unmasked)
    assert padding.check(specimen("jamba")).verdict == "fail"


def unmasked(documents, ids_BS, document_BS):
    return documents._call(input_ids=ids_BS)


# a cache of its own; keys chosen by another network; states of convolutions, of which rows end
@pytest.mark.parametrize("kind", ["minimax", "deepseek_v32", "lfm2_moe"])
def test_generation_with_a_cache_equals_one_without(kind):
    assert generation.check(specimen(kind)).verdict == "pass"


def test_sparse_attention_under_another_name_is_a_failure(monkeypatch):
    monkeypatch.setattr(decoding, "_speaks_of_sdpa", lambda kind: False)
    assert generation.check(specimen("deepseek_v32")).verdict == "fail"


@pytest.mark.slow  # the smallest model of its kind takes seconds, in which it is run token by token
def test_prompts_are_padded_only_where_padding_is_ignored(monkeypatch):
    assert generation.check(specimen("deepseek_v4")).verdict == "pass"
    monkeypatch.setattr(HuggingFaceLM, "ignores_padding", lambda *_: True)
    assert generation.check(specimen("deepseek_v4")).verdict == "fail"


def test_a_model_whose_padding_is_no_text_tells_so():
    model = generation.language_model(specimen("llama4_text").decoder().eval(), generation._tokenizer(128))
    assert not model.ignores_padding(20)
    model = generation.language_model(specimen("mixtral").decoder().eval(), generation._tokenizer(128))
    state = torch.get_rng_state()
    assert model.ignores_padding(9) and torch.equal(state, torch.get_rng_state())
