"""Tiny random language models, and texts that have synonyms."""

from lit_core.lm.language_model import HuggingFaceLM
from lit_detect.scoring.masked_language_model import MaskedLM

TEXTS = [
    "the happy child walked quickly to the old house and found a large box near the door which was very strange "
    "because the story of the rich uncle was false",
    "Emma thought of her  father, and the company seemed pleased. The city was big and the answer was quick, so that "
    "nobody had reason to stop the discussion.",
    "house",
    "",
    "  A quick reply, please!\n\nThe end came suddenly.  ",
]


def causal(folder):
    return HuggingFaceLM.from_pretrained(folder)


def masked(folder):
    """A random BERT that fills masks, with the tokenizer of a classifier's folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    settings = sizes | {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": 0.3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = BertForMaskedLM(BertConfig(**settings)).eval()
    return MaskedLM(model, tokenizer, "tiny")
