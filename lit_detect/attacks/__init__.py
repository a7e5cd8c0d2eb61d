"""Attacks, one file per method."""

from lit_detect.attacks.alternative_spelling import AlternativeSpelling
from lit_detect.attacks.article_deletion import ArticleDeletion
from lit_detect.attacks.base import Attack, Attacked, apply_edits
from lit_detect.attacks.dftfooler import DFTFooler
from lit_detect.attacks.entity_swap import EntitySwap
from lit_detect.attacks.homoglyph import Homoglyph
from lit_detect.attacks.insert_paragraphs import InsertParagraphs
from lit_detect.attacks.masked_synonym import MaskedSynonym
from lit_detect.attacks.number import Number
from lit_detect.attacks.paraphrase import Paraphrase
from lit_detect.attacks.perplexity_misspelling import PerplexityMisspelling
from lit_detect.attacks.random_perturbation import RandomPerturbation
from lit_detect.attacks.substitution import substitution_similarities
from lit_detect.attacks.textfooler import TextFooler
from lit_detect.attacks.upper_lower import UpperLower
from lit_detect.attacks.whitespace import Whitespace
from lit_detect.attacks.zero_width_space import ZeroWidthSpace
from lit_detect.records import Edit

__all__ = [
    "AlternativeSpelling",
    "ArticleDeletion",
    "Attack",
    "Attacked",
    "DFTFooler",
    "Edit",
    "EntitySwap",
    "Homoglyph",
    "InsertParagraphs",
    "MaskedSynonym",
    "Number",
    "Paraphrase",
    "PerplexityMisspelling",
    "RandomPerturbation",
    "TextFooler",
    "UpperLower",
    "Whitespace",
    "ZeroWidthSpace",
    "apply_edits",
    "substitution_similarities",
]
