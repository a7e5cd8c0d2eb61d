"""Scores of texts by language models: causal, masked, and GRUEN's quality score."""

from lit_detect.scoring.masked_language_model import MaskedLM

__all__ = ["MaskedLM"]
