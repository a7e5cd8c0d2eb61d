"""A small language model of transformers with random weights, in a LightningModule that knows nothing of ours."""

import lightning.pytorch as pl
import torch
from torch.nn import functional as F

VOCABULARY = 257  # of the tokenizer of bytes


class Llama(pl.LightningModule):
    """A Llama of two layers.

    Args:
        tied: Whether the head's weight is that of the embeddings.
        vocabulary: Number of tokens.
        positions: How a text's loss comes from its positions.
    """

    def __init__(self, tied: bool = True, vocabulary: int = VOCABULARY, positions: str = "mean") -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.save_hyperparameters()
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=tied,
        )
        self.model = LlamaForCausalLM(config)
        self.head, self.positions = "model.lm_head", positions

    def forward(self, x):
        """Return the logits of token ids, where -1 stands for none."""
        return self.model(input_ids=x.clamp(min=0), attention_mask=(x >= 0).long()).logits

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["x"]).flatten(0, 1), batch["y"].flatten())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)
