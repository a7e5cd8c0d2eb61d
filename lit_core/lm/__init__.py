"""Language models and tokenizers under one interface, and sampling from them."""

from lit_core.lm.language_model import HuggingFaceLM, LanguageModel
from lit_core.lm.pretrained import smollm2

__all__ = ["HuggingFaceLM", "LanguageModel", "smollm2"]
