"""The tokenizer of a party's texts, which lies beside their labelled sets."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer

_FILE = "tokenizer.json"


def vocabulary_of(tokenizer: Tokenizer) -> str:
    """Return what token ids mean, as a name that is equal for equal tokenizers."""
    return f"{tokenizer.vocab_size} tokens, {tokenizer.sha256}"


def store_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer of texts beside their labelled sets, unless it is there."""
    if not (folder / _FILE).is_file():
        tokenizer.save(folder / _FILE)


def stored_tokenizer(folder: Path, vocabulary: str | None) -> Tokenizer | None:
    """Return the tokenizer of texts.

    Args:
        folder: Folder of the labelled sets.
        vocabulary: What the token ids mean, as the sets say; None for inputs that are not tokens.

    Returns:
        The tokenizer; None if there is none, or the inputs are not tokens.

    Raises:
        UserError: If the tokenizer in the folder is another one than that of the sets.
    """
    if vocabulary is None or not (folder / _FILE).is_file():
        return None
    with suppress(UserError):
        stored = Tokenizer.load(folder / _FILE)
        if vocabulary_of(stored) == vocabulary:
            return stored
    raise UserError(
        f"{folder / _FILE} is not the tokenizer of the texts beside it; restore it and tokenizer_config.json, or "
        "remove both and run the same prepare again, which writes them."
    )
