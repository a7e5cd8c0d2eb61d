"""RouterBalance on a Mixtral of transformers inside a LightningModule of one's own, which knows nothing of lit_moe.

The model is tiny and starts from random weights; it reads the bytes of two of the standard library's modules. The gates
are found by themselves. To be run by `python examples/router_balance_on_mixtral.py`.
"""

import argparse
import inspect
import textwrap

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset
from transformers import MixtralConfig, MixtralForCausalLM

from lit_moe.callbacks import RouterBalance

SHAPE = MixtralConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_local_experts=8,
    num_experts_per_tok=2,
    router_aux_loss_coef=0.02,
)


class MyMixtral(pl.LightningModule):
    """Fine-tunes as transformers does, with its own balance loss."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MixtralForCausalLM(SHAPE)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return transformers' loss."""
        ids = batch[0].long()
        return self.model(input_ids=ids, labels=ids, output_router_logits=True).loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Run the model; the callback looks on."""
        self.model(input_ids=batch[0].long())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train all weights."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def windows(text: str) -> TensorDataset:
    return TensorDataset(torch.tensor(list(text.encode()), dtype=torch.uint8).unfold(0, 64, 64))


def main(folder: str = "runs/examples/router_balance_on_mixtral") -> None:
    pl.seed_everything(0, verbose=False)
    code, prose = windows(inspect.getsource(argparse)), windows(inspect.getsource(textwrap))
    trainer = pl.Trainer(
        max_steps=40,
        val_check_interval=20,
        log_every_n_steps=20,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[RouterBalance()],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(MyMixtral(), DataLoader(code, 16, shuffle=True), {"prose": DataLoader(prose, 64)})

    metrics = trainer.callback_metrics
    for layer in range(SHAPE.num_hidden_layers):
        mri, loss = (metrics[f"train/router/{name}/layer_{layer:02d}"] for name in ("mri", "raw_balance_loss"))
        print(f"layer {layer}: MRI {mri:.3f} on a batch of code, balance loss {loss:.3f}")
    print(f"MRI on prose {metrics['val/prose/router/mri/mean']:.3f}, floor {metrics['val/router/mri_floor']:.3f}")
    print(f"all numbers: {folder}/metrics.csv")


if __name__ == "__main__":
    main()
