"""Sample texts of the model, before and after training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.errors import UserError
from lit_core.lightning.internals import logged_step
from lit_core.lightning.pictures import add_text
from lit_core.lm.language_model import LanguageModel
from lit_core.lm.sampling import check_sampling
from lit_core.lm.tokenizer import Tokenizer
from lit_core.seeds import part_seed
from lit_moe.lm import language_model
from lit_moe.nn import Decoder, HFDecoder


class SampleText(Callback):
    """Logs to TensorBoard how the model continues some prompts: at the start and end of training, and in a test.

    Prompts and continuations are written to TensorBoard and nowhere else. Sampling has its own random numbers, so
    training is the same with and without this callback.

    =============================  ======  ============================================
    key                            unit    moment
    =============================  ======  ============================================
    ``samples/{nn}`` (text)        text    start and end of training; prompt nn, from 0
    ``test/samples/{nn}`` (text)   text    end of a test
    =============================  ======  ============================================

    Works on a LightningModule with a `lit_moe.nn.Decoder` or `HFDecoder` as ``decoder`` and a ``tokenizer``, such as
    `MoELanguageModel`.

    Args:
        prompts: Texts to be continued; an empty one begins a new document.
        max_new_tokens: Largest number of tokens per text, 1 or more.
        temperature: Divisor of the logits, 0 or more; 0 takes the likeliest token.
        top_k: How many of the likeliest tokens may be drawn, 1 or more; None allows all.
        seed: Seed of the drawn tokens, 0 or more; None takes that of the run.
    """

    def __init__(
        self,
        prompts: list[str],
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = 50,
        seed: int | None = None,
    ) -> None:
        if not prompts:
            raise UserError("`prompts` is empty, but SampleText continues texts; name one or leave the callback out.")
        seed = part_seed(seed)
        check_sampling(max_new_tokens, temperature, top_k, None, 1.0, seed, batch_size=len(prompts))
        self.prompts = list(prompts)
        self.options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "seed": seed,
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the module can continue texts, now that it has taken its tokenizer from the data."""
        _model(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the module can continue texts."""
        _model(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the model writes before the first step; not again after a resume."""
        if trainer.global_step == 0:
            self._show(trainer, pl_module, "samples")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the model writes now."""
        self._show(trainer, pl_module, "samples", back=1)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the tested model writes."""
        self._show(trainer, pl_module, "test/samples")

    def _show(self, trainer: Trainer, pl_module: LightningModule, key: str, back: int = 0) -> None:
        model, tokenizer = _model(pl_module)
        # on every rank and equally often: the layers of a sharded model run on all of them, or on none
        end = tokenizer.end_of_text
        prompts = [tokenizer.prompt(prompt) for prompt in self.prompts]
        rows = model.generate_ids(prompts, stop_at_end=False, **self.options)
        rows = [row[: row.index(end)] if end in row else row for row in rows]
        texts = [tokenizer.continuation(before, row) for before, row in zip(prompts, rows, strict=True)]
        # a resume hides what stands at the checkpoint's step, so the last text belongs to the last step trained on
        step = max(logged_step(trainer) - back, 0)
        for number, (prompt, text) in enumerate(zip(self.prompts, texts, strict=True)):
            add_text(trainer, f"{key}/{number:02d}", prompt + text, step)


def _model(module: LightningModule) -> tuple[LanguageModel, Tokenizer]:
    decoder, tokenizer = getattr(module, "decoder", None), getattr(module, "tokenizer", None)
    if not isinstance(decoder, Decoder | HFDecoder) or not isinstance(tokenizer, Tokenizer):
        raise UserError(
            "SampleText needs a module with a `decoder` of lit_moe.nn and a `tokenizer` of lit_core.lm, such as "
            f"MoELanguageModel with a TokenDataModule, but {type(module).__name__} lacks one or both; leave the "
            "callback out."
        )
    return language_model(decoder, tokenizer), tokenizer
