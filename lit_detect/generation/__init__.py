"""Machine twins of human texts: passages, generation with language models and n-grams, a check for leaks."""

from lit_detect.generation.ngram_model import train_ngram

__all__ = ["train_ngram"]
