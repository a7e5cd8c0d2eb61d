"""Hidden states and output layer apart give the logits, also for models that do more to them."""

import pytest
import torch

from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

SHAPE = dict(
    vocab_size=264,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=0,
)


def gpt2():
    shape = dict(vocab_size=264, n_embd=32, n_head=4, n_layer=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))


def gemma2():  # caps its logits
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SHAPE, head_dim=8))


def granite():  # divides its logits
    return transformers.GraniteForCausalLM(transformers.GraniteConfig(**SHAPE, logits_scaling=3.0))


@pytest.mark.parametrize(("make", "divides"), [(gpt2, True), (llama, True), (gemma2, False), (granite, False)])
def test_head_of_hidden_is_the_logits(make, divides):
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    lm = HuggingFaceLM(model.train(), Tokenizer.bytes())  # looking for the parts leaves the mode alone
    ids = torch.randint(0, 256, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, 5:], mask[1, :3] = False, False
    assert lm.divides is divides and model.training
    model.eval()
    with torch.no_grad():
        assert torch.equal(lm.head(lm.hidden(ids)), lm.logits(ids)[0])
        masked = lm.logits(ids, mask=mask)[0]
        assert torch.allclose(lm.head(lm.hidden(ids, mask))[mask], masked[mask], atol=1e-5)
    assert lm.hidden(ids).shape[-1] == (32 if divides else 264)
    assert lm.name == type(model).__name__


def test_the_folder_and_the_layers_are_in_the_name(tmp_path):
    llama().save_pretrained(tmp_path / "small-llama")
    Tokenizer.bytes().save(tmp_path / "small-llama")
    folder = str(tmp_path / "small-llama")
    assert HuggingFaceLM.from_pretrained(folder).name == "small-llama"
    assert HuggingFaceLM.from_pretrained(folder + "/", layers=1).name == "small-llama, first 1 layers"
