"""Sources of labelled samples: public data sets from packages and the hub, and the user's own files and folders."""

from lit_valuation.sources.arrays import Arrays
from lit_valuation.sources.base import LabelledSource
from lit_valuation.sources.fashion_mnist import FashionMNIST
from lit_valuation.sources.hugging_face import HuggingFaceSamples
from lit_valuation.sources.image_folder import ImageFolder
from lit_valuation.sources.mlbench import LetterRecognition, Satellite, Shuttle
from lit_valuation.sources.newsgroups import TwentyNewsgroups
from lit_valuation.sources.shard_folder import ShardFolder
from lit_valuation.sources.sklearn import Digits, SklearnTable
from lit_valuation.sources.table import Table
from lit_valuation.sources.texts import Texts
from lit_valuation.sources.token_texts import PlainTexts, TaggedWords
from lit_valuation.sources.webdataset import WebDataset

__all__ = [
    "Arrays",
    "Digits",
    "FashionMNIST",
    "HuggingFaceSamples",
    "ImageFolder",
    "LabelledSource",
    "LetterRecognition",
    "PlainTexts",
    "Satellite",
    "ShardFolder",
    "Shuttle",
    "SklearnTable",
    "Table",
    "TaggedWords",
    "Texts",
    "TwentyNewsgroups",
    "WebDataset",
]
