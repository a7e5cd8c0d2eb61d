"""Continual pre-training of mixture-of-experts language models (Thérien et al. 2025, arXiv 2503.05029)."""
