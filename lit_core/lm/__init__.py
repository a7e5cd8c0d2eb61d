"""Language models and tokenizers under one interface, and sampling from them."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_core.lm.language_model import HuggingFaceLM, LanguageModel
    from lit_core.lm.pretrained import smollm2

__all__ = ["HuggingFaceLM", "LanguageModel", "smollm2"]
__getattr__, __dir__ = exports(__name__)
