"""What a study of continual pre-training is made of: `experiment` is one of its cells."""

from lit_moe.study.cell import experiment

__all__ = ["experiment"]
