import copy

import pytest
import torch
from tiny_models import HUMAN, MACHINE, overfit

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.detectors import GroverDetector

TEXTS = [*HUMAN, "", "one " * 200, "😀😀", "<|endoftext|>"]


@pytest.fixture(params=["gpt2", "llama"])
def detector(request, tiny_gpt2):
    if request.param == "gpt2":
        return GroverDetector(HuggingFaceLM.from_pretrained(tiny_gpt2), max_tokens=32)
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=260, tie_word_embeddings=False, **sizes))
    return GroverDetector(HuggingFaceLM(model, Tokenizer.bytes()), max_tokens=32)


def test_scores_are_those_of_the_last_state_one_text_at_a_time(detector):
    tokenizer, end = detector._lm.tokenizer, detector._lm.tokenizer.end_of_text
    network, head = copy.deepcopy(detector.backbone).eval(), copy.deepcopy(detector.head).requires_grad_(False)
    expected = []
    for text in TEXTS:
        ids = [*tokenizer.encode(text)[:31], end]
        with torch.no_grad():
            state = network(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
        expected.append(float(head(state) @ torch.tensor([-1.0, 1.0])))
    torch.testing.assert_close(detector.score(TEXTS), torch.tensor(expected).double(), atol=1e-5, rtol=0)
    assert detector.count_tokens(TEXTS) == [len(tokenizer.encode(text)) for text in TEXTS]


def test_the_batch_does_not_matter_and_evaluation_is_deterministic(detector):
    scores = detector.score(TEXTS)
    torch.testing.assert_close(scores, torch.cat([detector.score([text]) for text in TEXTS]), atol=1e-5, rtol=0)
    assert torch.equal(scores, detector.score(TEXTS)) and detector.score([]).shape == (0,)


def test_the_whole_model_is_trained_but_for_an_output_layer_of_its_own(detector):
    detector(TEXTS).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in detector.parameters())
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    assert frozen == ({"backbone.lm_head.weight"} if "Llama" in detector.name else set())


def test_it_learns_eight_texts(detector):
    assert overfit(detector, 30, 3e-3) == 1
    assert detector.score(MACHINE).min() > detector.score(HUMAN).max()


def test_weights_come_back_from_a_state(detector, tiny_gpt2):
    other = copy.deepcopy(detector)
    overfit(other, 3, 1e-2)
    assert not torch.equal(other.score(HUMAN), detector.score(HUMAN))
    detector.load_state_dict(other.state_dict())
    assert torch.equal(other.score(HUMAN), detector.score(HUMAN))


def test_mistakes(tiny_gpt2):
    for tokens, rule in ((1, "must be 2 or more"), (65, "must be at most 64")):
        with pytest.raises(UserError, match=rule):
            GroverDetector(HuggingFaceLM.from_pretrained(tiny_gpt2), max_tokens=tokens)
    with pytest.raises(UserError, match="bfloat16"):
        GroverDetector(HuggingFaceLM.from_pretrained(tiny_gpt2, dtype="bfloat16"), max_tokens=32)


@pytest.mark.slow
def test_smollm2():
    from lit_core.lm.pretrained import smollm2

    detector = GroverDetector(smollm2(layers=2))
    assert detector.score([*HUMAN, ""]).isfinite().all()
