"""FAST without its plain document path."""

from __future__ import annotations

from typing import ClassVar

from lit_detect.detectors.fast import FASTDetector


class DistilFAST(FASTDetector):
    """Classifies a text as `FASTDetector` does but without the encoder's document vector, so that the names decide.

    The variant of Pu et al. 2023 is not published; this is its idea. The vectors of the names still come from the
    encoder and know of the words around them.

    Args:
        model: Name of a Hugging Face encoder, a local folder, minilm for the packaged all-MiniLM-L6-v2, or
            scratch-4x128 for 4 layers of width 128 with new weights, for which nothing is fetched.
        max_tokens: Tokens read of a text, the first ones, with those that mark its ends; 8 or more, and no more than
            the encoder takes.
        width: Width of the states of names and sentences, 1 or more.
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; None finds them by rules.
        seed: Seed of the weights that are new, 0 or more.
    """

    document_path: ClassVar[bool] = False
