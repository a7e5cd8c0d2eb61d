"""`LanguageModel`, the interface of all language models: logits, hidden states and generation.

Shape suffixes: B batch, S sequence, K tokens seen so far, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_core.errors import UserError
from lit_core.files.paths import resolve_data_path
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.decoding import grow_in_place, keep_cache_rows, use_packed_attention
from lit_core.lm.influence import Trial
from lit_core.lm.quantized import dequantize
from lit_core.lm.sampling import check_sampling, choose_tokens, uniforms
from lit_core.lm.tokenizer import Tokenizer
from lit_core.lm.transformers_loading import load_whole, loading
from lit_core.origin import keeps_origin
from lit_core.seeds import part_seed


class LanguageModel(ABC):
    """Interface of language models, which predict the next token and generate text.

    Attributes:
        name: Name of the model, such as SmolLM2-135M-Instruct.
        tokenizer: Converts text to the model's token ids and back.
        module: The network.
        max_length: Longest sequence in tokens; None if there is no limit.
    """

    name: str
    tokenizer: Tokenizer
    module: nn.Module
    max_length: int | None = None

    @abstractmethod
    def new_cache(self) -> Any:
        """Return an empty cache of keys and values, to be passed to :meth:`logits`."""

    @abstractmethod
    def logits(
        self, ids_BS: Tensor, cache: Any = None, *, mask: Tensor | None = None, last_only: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the logits of the next token after each token.

        Args:
            ids_BS: Token ids of shape ``(batch, sequence)``; with a cache, those after the cached tokens.
            cache: The cache that :meth:`new_cache` or an earlier call returned; None does not cache.
            mask: True for real tokens, False for padding, of the ids' shape; None for no padding. A later call with the
                same cache gives the mask of its new tokens only.
            last_only: Whether only the last token's logits are computed, which saves memory for long prompts.

        Returns:
            Logits of shape ``(batch, sequence or 1, vocabulary)``, and the cache.
        """

    def hidden(self, ids_BS: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the states from which `head` computes logits, so that a whole batch of logits need not be in memory.

        Args:
            ids_BS: Token ids of shape ``(batch, sequence)``.
            mask: True for real tokens, False for padding, of the ids' shape; None for no padding.

        Returns:
            Hidden states of shape ``(batch, sequence, width)``; the logits if the model cannot be divided.
        """
        return self.logits(ids_BS, mask=mask)[0]

    def head(self, hidden: Tensor) -> Tensor:
        """Return the next-token logits ``(..., vocabulary)`` for states ``(..., width)`` that `hidden` returned."""
        return hidden

    @abstractmethod
    def keep_rows(self, cache: Any, rows: Sequence[int]) -> Any:
        """Return a cache with only some of the rows.

        Args:
            cache: The cache that :meth:`logits` returned; it must not be used afterwards.
            rows: Indices of the rows to keep, ascending.
        """

    @property
    def device(self) -> torch.device:
        """Device of the network's weights."""
        return next(self.module.parameters()).device

    def generate(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """Continue texts.

        Args:
            prompts: The texts; an empty one starts a new document.
            options: Options of :meth:`generate_ids`.

        Returns:
            The continuations, without the prompts, in the order of the prompts.
        """
        encoded = [self.tokenizer.prompt(prompt) for prompt in prompts]
        rows = self.generate_ids(encoded, **options)
        return [self.tokenizer.continuation(before, row) for before, row in zip(encoded, rows, strict=True)]

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        batch_size: int = 16,
        first_row: int = 0,
        stop_at_end: bool = True,
    ) -> list[list[int]]:
        """Continue token sequences.

        Each prompt has its own random numbers, seeded by the seed and its index, so its continuation does not depend on
        its batch. The network runs in evaluation mode; its former mode is restored.

        Args:
            prompts: Token ids of each prompt, one or more.
            max_new_tokens: Largest number of new tokens per prompt.
            temperature: Divisor of the logits; 0 takes the likeliest token.
            top_k: How many of the likeliest tokens may be drawn; None allows all.
            top_p: Probability in (0, 1] that the fewest likeliest tokens to draw from must reach; None allows all.
            repetition_penalty: Divisor of positive and factor of negative logits of tokens that the prompt or the
                continuation already contains (Keskar et al. 2019, arXiv 1909.05858); 1 changes nothing.
            seed: Seed of the drawn tokens, 0 or more; None takes that of the run.
            batch_size: Prompts continued at once.
            first_row: Index of the first prompt in a longer list that is passed in parts.
            stop_at_end: Whether a continuation stops at the end-of-text token.

        Returns:
            New token ids of each prompt, without the end-of-text token that stopped it.

        Raises:
            UserError: If an option is out of range, a prompt is empty, or a text would exceed the model's limit.
        """
        seed = part_seed(seed)
        check_sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed, batch_size)
        self._check_lengths(prompts, max_new_tokens)
        choices = (temperature, top_k, top_p, repetition_penalty)
        stop = self.tokenizer.end_of_text if stop_at_end else None
        done: list[list[int]] = []
        with evaluating(self.module), torch.no_grad():
            for start in range(0, len(prompts), batch_size):
                batch = prompts[start : start + batch_size]
                numbers = [uniforms(seed, first_row + start + row) for row in range(len(batch))]
                done += self._generate_rows(batch, max_new_tokens, choices, numbers, stop)
        return done

    def ignores_padding(self, width: int) -> bool:
        """Tell whether left padding of a row changes nothing in the logits of its other tokens.

        Args:
            width: Tokens of the row, with padding.
        """
        return True

    def _check_lengths(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise UserError(f"Prompt {index} has no tokens; start it with the end-of-text token.")
            if self.max_length is not None and len(prompt) + max_new_tokens > self.max_length:
                raise UserError(
                    f"Prompt {index} has {len(prompt)} tokens and max_new_tokens is {max_new_tokens}, but the model "
                    f"takes {self.max_length} together; shorten the prompt or lower max_new_tokens."
                )

    def _generate_rows(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        choices: tuple[float, int | None, float | None, float],
        numbers: list[Iterator[float]],
        stop: int | None,
    ) -> list[list[int]]:
        """Continue prompts together; only those of equal length if the network does not ignore padding."""
        lengths = sorted({len(prompt) for prompt in prompts})
        if len(lengths) == 1 or self.ignores_padding(lengths[-1]):
            return self._generate_batch(prompts, max_new_tokens, choices, numbers, stop)
        done: list[list[int]] = [[] for _ in prompts]
        for length in lengths:
            rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
            some = [prompts[row] for row in rows], [numbers[row] for row in rows]
            new = self._generate_batch(some[0], max_new_tokens, choices, some[1], stop)
            for row, tokens in zip(rows, new, strict=True):
                done[row] = tokens
        return done

    def _generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        choices: tuple[float, int | None, float | None, float],
        numbers: list[Iterator[float]],
        stop: int | None,
    ) -> list[list[int]]:
        end, width = self.tokenizer.end_of_text, max(map(len, prompts))
        # Padding stands on the left, so that every row's next token is in the last column.
        ids_BS = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        mask_BS: Tensor | None = torch.tensor(
            [[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts], device=self.device
        )
        if all(len(prompt) == width for prompt in prompts):
            mask_BS = None
        seen_BV: Tensor | None = None
        new: list[list[int]] = [[] for _ in prompts]
        prompt_of_row = list(range(len(prompts)))  # of the rows that the network still runs
        running = set(prompt_of_row)
        cache = self.new_cache()
        while True:
            logits_BSV, cache = self.logits(ids_BS, cache, mask=mask_BS, last_only=True)
            # A vocabulary may be padded to a round number; the padding ids have no meaning.
            logits_BV = logits_BSV[:, -1, : self.tokenizer.vocab_size].float()
            if choices[3] != 1:
                if seen_BV is None:
                    seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
                    for row, prompt in enumerate(prompts):
                        seen_BV[row, list(prompt)] = True
                else:
                    seen_BV.scatter_(1, ids_BS, True)
            drawn = [next(numbers[index]) for index in prompt_of_row]
            ids_BS = choose_tokens(logits_BV, torch.tensor(drawn, device=self.device), *choices, seen_BV)[:, None]
            mask_BS = None
            for index, token in zip(prompt_of_row, ids_BS[:, 0].tolist(), strict=True):
                if index not in running:
                    continue
                if token != stop:
                    new[index].append(token)
                if token == stop or len(new[index]) == max_new_tokens:
                    running.remove(index)
            if not running:
                return new
            if 4 * len(running) <= 3 * len(prompt_of_row):  # not at each end, since the cache is copied
                rows = [row for row, index in enumerate(prompt_of_row) if index in running]
                prompt_of_row, ids_BS, cache = (
                    [prompt_of_row[row] for row in rows],
                    ids_BS[rows],
                    self.keep_rows(cache, rows),
                )
                seen_BV = None if seen_BV is None else seen_BV[rows]


def divides(model: Any) -> bool:
    """Tell whether a model's logits are its output layer of the last hidden states; some models also scale or cap them.

    Args:
        model: A causal language model of transformers. On the meta device, where nothing is computed, it is assumed.
    """
    base, output = model.base_model, model.get_output_embeddings()
    if base is model or output is None:
        return False
    if output.weight.is_meta:
        return True
    ids_BS = torch.tensor([[2, 1, 0]], device=output.weight.device)  # one of them may be padding, whose state is 0
    with evaluating(model), torch.no_grad():
        hidden_BSD = base(input_ids=ids_BS, use_cache=False)[0]
        return torch.equal(output(hidden_BSD), model(input_ids=ids_BS, use_cache=False).logits)


class HuggingFaceLM(LanguageModel):
    """A causal language model of Hugging Face's transformers.

    Args:
        model: The model, for example of ``AutoModelForCausalLM``.
        tokenizer: Its tokenizer.
        name: Name of the model; None for the name of its class.
        call: Called instead of the model with the same arguments; None calls the model.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, name: str | None = None, call: Callable[..., Any] | None = None
    ) -> None:
        self.name = type(model).__name__ if name is None else name
        use_packed_attention(model)
        self.module = model
        self._call = model if call is None else call
        self.tokenizer = tokenizer
        self.max_length = getattr(model.config, "max_position_embeddings", None)
        self._ignores: dict[int, bool] = {}  # whether left padding changes nothing, by the width of the rows

    @classmethod
    @keeps_origin
    def from_pretrained(
        cls,
        name: str,
        layers: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        device: str = "cpu",
    ) -> HuggingFaceLM:
        """Load a model by name or from a folder, only from safetensors files, so that nothing is unpickled.

        Args:
            name: Name of a Hugging Face model, or a folder, which may be below the data root.
            layers: Number of layers to keep, the first ones; None keeps all. Fewer make a weaker, faster model.
            dtype: Type of the weights; bfloat16 is faster only where the processor has it.
            device: Device of the weights.

        Raises:
            UserError: If there is no such model, or it has fewer layers.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        folder = resolve_data_path(name)
        name = str(folder) if folder.is_dir() else name
        subject = f"The language model is {name}"
        with loading(subject, "give a Hugging Face name or a folder with safetensors", name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            dequantize(config, name, subject)
            known = config.num_hidden_layers
            if layers is not None and not 1 <= layers <= known:
                raise UserError(f"layers is {layers}, but {name} has {known}; keep from 1 to {known}, or null for all.")
            config.num_hidden_layers = layers or known
            fewer = config.num_hidden_layers < known
            model = load_whole(AutoModelForCausalLM, name, partly=fewer, config=config, dtype=getattr(torch, dtype))
        called = name.rstrip("/").split("/")[-1]
        if fewer:
            called += f", first {layers} layers"
        return cls(model.eval().to(device), Tokenizer.load(name), called)

    def new_cache(self) -> Any:
        """Return an empty cache: that of the model, which makes it in its first call, and the mask of the tokens."""
        return None, None

    def keep_rows(self, cache: Any, rows: Sequence[int]) -> Any:
        """Return a cache with only some of the rows; see the base class."""
        past, mask_BK = cache
        indices = torch.tensor(rows, device=self.device)
        keep_cache_rows(past, indices)
        return past, mask_BK[indices]

    def logits(
        self, ids_BS: Tensor, cache: Any = None, *, mask: Tensor | None = None, last_only: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the logits of the next token after each token; see the base class."""
        past, mask_BK = (None, None) if cache is None else cache
        new_BS = torch.ones_like(ids_BS, dtype=torch.bool) if mask is None else mask
        mask_BK = new_BS if mask_BK is None else torch.cat((mask_BK, new_BS), dim=1)
        # Learned positions would otherwise count the padding.
        positions_BS = (mask_BK.long().cumsum(1) - 1).clamp(min=0)[:, -ids_BS.shape[1] :]
        output = self._call(
            input_ids=ids_BS,
            attention_mask=mask_BK.long(),
            position_ids=positions_BS,
            past_key_values=past,
            use_cache=cache is not None,
            logits_to_keep=1 if last_only else 0,
        )
        if cache is None:
            return output.logits, None
        if past is None:
            grow_in_place(output.past_key_values)
        return output.logits, (output.past_key_values, mask_BK)

    def ignores_padding(self, width: int) -> bool:
        """Tell whether left padding changes nothing; see the base class. It is tried on such a row."""
        width = max(8, min(1 << (width - 1).bit_length(), self.max_length or width))
        if width not in self._ignores:
            start = width // 3
            gradients = not isinstance(self.module.get_input_embeddings().weight, DTensor)  # type: ignore[operator]
            pieces = [(0, 0, width), (1, start, width)]
            trial = Trial(self.module, lambda ids: self.logits(ids)[0], pieces, (2, width), gradients)
            mask_BS = torch.ones(2, width, dtype=torch.bool, device=self.device)
            mask_BS[1, :start] = False
            self._ignores[width] = trial.separates(lambda ids: self.logits(ids, mask=mask_BS)[0])
        return self._ignores[width]

    def hidden(self, ids_BS: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last hidden states, or the logits where `divides` is False; see the base class."""
        return self._last_hidden(ids_BS, mask) if self.divides else self.logits(ids_BS, mask=mask)[0]

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states; see the base class."""
        return self._parts[1](hidden) if self.divides else hidden

    @cached_property
    def divides(self) -> bool:
        """Whether the logits are the output layer of the last hidden states; see the function `divides`."""
        return divides(self.module)

    @property
    def _parts(self) -> tuple[Any, Any]:
        """The network without its output layer, and that layer."""
        model: Any = self.module
        return model.base_model, model.get_output_embeddings()

    def _last_hidden(self, ids_BS: Tensor, mask: Tensor | None) -> Tensor:
        padding = {}
        if mask is not None:
            padding = {"attention_mask": mask.long(), "position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}
        return self._parts[0](input_ids=ids_BS, use_cache=False, **padding)[0]
