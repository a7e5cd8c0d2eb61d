"""DistilFAST: the FAST detector without the encoder's document vector."""

from __future__ import annotations

from typing import ClassVar

from lit_detect.detectors.fast import FASTDetector


class DistilFAST(FASTDetector):
    """Classifies a text like `FASTDetector`, but without the encoder's document vector, so that the names decide.

    Pu et al. 2023 describe this variant but published no code. The vectors of the names still come from the encoder, so
    they depend on the words around them.

    Args:
        model: Name of a Hugging Face encoder, a local folder, minilm for the packaged all-MiniLM-L6-v2, or
            scratch-4x128 for 4 layers of width 128 with new weights, for which nothing is fetched.
        max_tokens: Number of tokens to read from the start of a text, special tokens included; 8 or more, at most what
            the encoder takes.
        width: Width of the states of names and sentences, 1 or more.
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; None finds them by rules.
        seed: Seed of the newly initialised weights, 0 or more; None takes that of the run.
    """

    document_path: ClassVar[bool] = False
