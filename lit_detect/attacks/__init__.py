"""Attacks, one file per method."""

from lit_detect.attacks.alternative_spelling import AlternativeSpelling
from lit_detect.attacks.article_deletion import ArticleDeletion
from lit_detect.attacks.base import Attack, Attacked, Edit, apply_edits
from lit_detect.attacks.dftfooler import DFTFooler
from lit_detect.attacks.homoglyph import Homoglyph
from lit_detect.attacks.insert_paragraphs import InsertParagraphs
from lit_detect.attacks.number import Number
from lit_detect.attacks.random_perturbation import RandomPerturbation
from lit_detect.attacks.upper_lower import UpperLower
from lit_detect.attacks.whitespace import Whitespace
from lit_detect.attacks.zero_width_space import ZeroWidthSpace

__all__ = [
    "AlternativeSpelling",
    "ArticleDeletion",
    "Attack",
    "Attacked",
    "DFTFooler",
    "Edit",
    "Homoglyph",
    "InsertParagraphs",
    "Number",
    "RandomPerturbation",
    "UpperLower",
    "Whitespace",
    "ZeroWidthSpace",
    "apply_edits",
]
