"""Knowledge of English: entities, parts of speech, inflection, synonyms, word vectors, similarity, Unicode."""

from lit_detect.language.normalize import NormalizeText
from lit_detect.language.parts_of_speech import SpacyTagger
from lit_detect.language.similarity import SentenceSimilarity
from lit_detect.language.word_vectors import WordVectors
from lit_detect.language.wordnet import WordNet

__all__ = ["NormalizeText", "SentenceSimilarity", "SpacyTagger", "WordNet", "WordVectors"]
