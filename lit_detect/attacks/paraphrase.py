"""Attack that paraphrases sentences by a sequence-to-sequence model."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from lit_core.errors import UserError, check_at_least, require
from lit_core.lm.transformers_loading import load_whole, loading
from lit_detect.attacks.base import Attack, Attacked, attacked
from lit_detect.language.entities import split_sentences
from lit_detect.records import Edit


class Paraphrase(Attack):
    """RAID's paraphrase attack: a model such as DIPPER rewrites the text, a few sentences at a time.

    Args:
        model: Name of a sequence-to-sequence model on Hugging Face, or a local folder.
        template: Input of the model, where ``{text}`` stands for the sentences and ``{before}`` for the paraphrase so
            far. DIPPER takes ``lexical = 40, order = 100 {before} <sent> {text} </sent>`` for a lexical diversity of 60
            and an order diversity of 0.
        sentences: Sentences per input, 1 or more.
        top_p: Probability mass of nucleus sampling, above 0 to 1.
        max_new_tokens: Most tokens that the model writes per input, 1 or more.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        model: str,
        template: str = "{text}",
        sentences: int = 3,
        top_p: float = 0.75,
        max_new_tokens: int = 300,
    ) -> None:
        if "{text}" not in template:
            raise UserError(
                f"template is {template!r}, but must contain {{text}}, which the sentences replace. Add {{text}} to it."
            )
        check_at_least(1, sentences=sentences, max_new_tokens=max_new_tokens)
        require(0 < top_p <= 1, "top_p", top_p, "above 0 and at most 1")
        self.model, self.template, self.sentences = model, template, sentences
        self.top_p, self.max_new_tokens = top_p, max_new_tokens
        self.name = f"Paraphrase[{model.rstrip('/').split('/')[-1]}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        spans, edits, written = split_sentences(text), list[Edit](), ""
        for part, first in enumerate(range(0, len(spans), self.sentences)):
            start, end = spans[first][0], spans[min(first + self.sentences, len(spans)) - 1][1]
            source = self.template.replace("{text}", text[start:end]).replace("{before}", written)
            after = self._write(source, seed + part).strip()
            if after and after != text[start:end]:
                edits.append(Edit(start, end, text[start:end], after))
            written += f" {after or text[start:end]}"
        return attacked(text, edits, template=self.template, sentences=self.sentences, top_p=self.top_p)

    @torch.no_grad()
    def _write(self, source: str, seed: int) -> str:
        tokenizer, model = self._loaded
        batch = tokenizer(source, return_tensors="pt", truncation=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            ids = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=True,
                top_p=self.top_p,
                top_k=None,
                max_new_tokens=self.max_new_tokens,
            )
        return tokenizer.decode(ids[0], skip_special_tokens=True)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        remedy = "give the Hugging Face name or folder of a sequence-to-sequence model with safetensors"
        with loading(f"model is {self.model}", remedy, self.model):
            model = load_whole(AutoModelForSeq2SeqLM, self.model)
            return AutoTokenizer.from_pretrained(self.model, trust_remote_code=False), model.eval()
