"""What the model writes, before and after."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.errors import UserError
from lit_core.tensorboard import add_text


class SampleText(Callback):
    """Shows in TensorBoard how the model continues some prompts: at the start and end of training, and in a test.

    Nothing is written anywhere else, and no text of the data is shown. The samples have random numbers of their own, so
    training is the same with and without this callback.

    ==========================  ======  ============================================
    key                         unit    moment
    ==========================  ======  ============================================
    ``samples/{n}`` (text)      text    start and end of training; n-th prompt from 0
    ``test/samples/{n}`` (text) text    end of a test
    ==========================  ======  ============================================

    Args:
        prompts: Texts to be continued.
        max_new_tokens: Tokens per continuation, 1 or more.
        temperature: Divisor of the logits, above 0; 0 takes the most likely token.
        top_k: How many of the likeliest tokens may be drawn; None allows all.
        seed: Seed of the drawn tokens, 0 or more.
    """

    def __init__(
        self,
        prompts: list[str],
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = 50,
        seed: int = 0,
    ) -> None:
        if max_new_tokens < 1:
            raise UserError(f"`max_new_tokens` is {max_new_tokens}, but it must be at least 1; give a positive number.")
        if temperature < 0:
            raise UserError(f"`temperature` is {temperature}, but can't be negative; 0 takes the likeliest token.")
        self.prompts = list(prompts)
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_k = top_k
        self.seed = seed
