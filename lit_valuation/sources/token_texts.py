"""Texts as token ids: words with a tag each, for sequence labelling, and plain texts, for language models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError, check_at_least
from lit_core.fetch.hub import load_rows, need_datasets
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import say
from lit_valuation.data.vocabulary import vocabulary_of
from lit_valuation.samples import NEXT_TOKEN, NO_TOKEN, Samples, composed, next_tokens
from lit_valuation.sources.base import LabelledSource, label_of, name_of
from lit_valuation.sources.rows import cell_of, table_rows

#: Ends of the names of files that are read; what else `path` names is a dataset that `datasets` reads.
_TABLES, _CONLL = (".csv", ".jsonl", ".parquet"), (".bio", ".conll", ".txt")
#: What a line of a CoNLL file between two documents begins with.
_DOCUMENT = "-DOCSTART-"


class TokenSource(LabelledSource):
    """Base of the sources of texts as token ids. A subclass reads the columns of a row in `row`.

    Attributes:
        vocabulary: The tokenizer's number of tokens and hash, which all parties must share.
    """

    input = "tokens"

    def __init__(
        self,
        path: str,
        tokenizer: str,
        name: str | None,
        length: int,
        hub: Mapping[str, Any],
        licence: str,
        endings: Sequence[str],
        needed: Sequence[str],
    ) -> None:
        check_at_least(2, length=length)
        self.path = Path(path).expanduser()
        self.name = name_of(name, self.path)
        self.endings, self.needed, self.hub = tuple(endings), tuple(needed), {"path": path, **hub}
        self.is_file = self.path.suffix in endings
        if self.is_file and not self.path.is_file():
            raise UserError(f"path of the source {self.name} is {path}, but there is no such file; correct the path.")
        if not self.is_file or self.has_lists:
            need_datasets(type(self).__name__)
        self.tokenizer: Tokenizer = Tokenizer.load(tokenizer)
        self.length = length
        self.vocabulary = vocabulary_of(self.tokenizer)
        self.licence, self.origin = licence, "a file of texts" if self.is_file else path
        self.cut = 0

    @abstractmethod
    def row(
        self, row: Mapping[str, Any], features: Mapping[str, Any], where: str
    ) -> tuple[list[int], list[str | None]]:
        """Return the token ids of a row, at most `length`, and the tag of each; none for plain texts."""

    def rows(self) -> list[tuple[list[int], list[str | None]]]:
        """Return token ids and tags of all rows, and note where they are.

        Raises:
            UserError: If there are none, or one cannot be read.
        """
        found, places, self.cut = [], [], 0
        rows, features = self._given()
        for where, row in rows:
            found.append(self.row(row, features, where))
            places.append(where.removeprefix(f"{self.path}, "))
        if not found:
            raise UserError(f"{self.origin if not self.is_file else self.path} has no rows; add some.")
        if self.cut:
            say(f"{self.cut:,} of {len(found):,} texts are longer than {self.length} tokens; their ends are left out.")
        self.places = tuple(places)
        return found

    def ids(self, rows: Sequence[tuple[list[int], Any]]) -> torch.Tensor:
        """Return the token ids of all rows, int64 of shape ``(n, length)``."""
        x = torch.full((len(rows), self.length), NO_TOKEN)
        for line, (ids, _) in zip(x, rows, strict=True):
            line[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return x

    def keys(self, count: int) -> tuple[str, ...]:
        """Return the keys of as many samples."""
        return tuple(f"{self.name}-{index:07d}" for index in range(count))

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of local files."""
        local = [self.path] if self.is_file else []
        if not self.is_file and self.path.is_dir():
            local = [file for file in listed(self.path, "**/*") if file.is_file()]
        given = {"length": self.length, "vocabulary": self.vocabulary, **({} if self.is_file else self.hub)}
        return {**given, **files_facts(local)}

    def _given(self) -> tuple[Iterable[tuple[str, Mapping[str, Any]]], Mapping[str, Any]]:
        """Return file and line, and the cells by column, of each row; and what a dataset says of its columns."""
        if self.is_file and self.path.suffix in _CONLL:
            return _conll_rows(self.path, *self.needed), {}
        if self.is_file and not self.has_lists:
            return table_rows(self.path, columns=self.needed), {}
        remedy = f"correct path, subset or split, or give a file that ends in {', '.join(self.endings)}"
        hub = self.hub | ({"path": "parquet", "data_files": [str(self.path)]} if self.is_file else {})
        rows: Any = load_rows(f"The source {self.name}", remedy, streaming=False, **hub)
        place = self.path if self.is_file else self.origin
        numbered = ((f"{place}, row {number}", row) for number, row in enumerate(rows, self.is_file))
        return numbered, getattr(rows, "features", None) or {}

    @property
    def has_lists(self) -> bool:
        """Whether the file is a Parquet of lists, which `datasets` reads."""
        return self.path.suffix == ".parquet" and len(self.needed) > 1


class TaggedWords(TokenSource):
    """Texts whose words have a tag each, as for named entities or parts of speech. A row is a sample.

    The words of a row are joined by blanks and tokenized. The first token of a word has its tag, the others have none.

    Args:
        path: A .jsonl or .parquet file; a file of CoNLL (.conll, .bio, .txt), a word and its tag per line in the first
            and the last column, with empty lines between the texts; or a dataset for `datasets`, by its name on the
            hub or the folder that save_to_disk wrote.
        tokenizer: A tokenizer.json, a folder with one, a Hugging Face name, or bytes; all parties must name the same.
        name: Name of the source; None takes the last part of path.
        words: Column of the lists of words.
        tags: Column of the lists of tags, by name or by the numbers of `names`.
        names: Names of all tags in the order of their numbers; None takes those of the dataset, or those that occur.
        length: Most tokens of a text, 2 or more, which all parties must share; what is longer is cut.
        subset: Configuration of a dataset; None takes the only one.
        split: Split of a dataset.
        revision: Commit or tag of a dataset on the hub; None takes the newest.
        data_files: Local files or glob patterns, for the kinds of datasets that need them.
        licence: Licence of the texts, for the record.

    Raises:
        UserError: If the file or the tokenizer does not exist.
    """

    def __init__(
        self,
        path: str,
        tokenizer: str,
        name: str | None = None,
        words: str = "tokens",
        tags: str = "ner_tags",
        names: list[str] | None = None,
        length: int = 128,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        data_files: list[str] | None = None,
        licence: str = "unknown",
    ) -> None:
        hub = {"subset": subset, "split": split, "revision": revision, "data_files": data_files}
        super().__init__(path, tokenizer, name, length, hub, licence, (".jsonl", ".parquet", *_CONLL), (words, tags))
        if names is not None and (not names or len(set(names)) < len(names)):
            raise UserError(f"names of the source {self.name} is {names}, but must be different tags; correct it.")
        self.words, self.tags, self.names = words, tags, names and [composed(one) for one in names]
        self.known: list[str] | None = self.names

    def samples(self) -> Samples:
        """Return the texts in order.

        Raises:
            UserError: If a row has another number of tags than words, or a tag is not known. The message names it.
        """
        rows = self.rows()
        order = self.known or sorted({tag for _, tags in rows for tag in tags if tag is not None})
        index = {tag: number for number, tag in enumerate(order)}
        y = torch.full((len(rows), self.length), IGNORED)
        for line, (_, tags) in zip(y, rows, strict=True):
            line[: len(tags)] = torch.tensor([IGNORED if tag is None else index[tag] for tag in tags])
        return Samples(self.ids(rows), y, tuple(order), self.keys(len(rows)), target="tags")

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of local files."""
        return {"words": self.words, "tags": self.tags, "names": self.names, **super().facts()}

    def row(
        self, row: Mapping[str, Any], features: Mapping[str, Any], where: str
    ) -> tuple[list[int], list[str | None]]:
        """Return the token ids of a row and the tag of each."""
        self.known = self.names or _names(features.get(self.tags))
        words, cells = (
            _listed(cell_of(row, column, where), f"{where}, {column}") for column in (self.words, self.tags)
        )
        if len(words) != len(cells) or not words:
            raise UserError(
                f"{where} has {len(words)} {self.words} and {len(cells)} {self.tags}, but each word needs one tag; "
                "correct or remove it."
            )
        tags = [self._tag(cell, f"{where}, {self.tags}") for cell in cells]
        starts, text = [], ""
        for word in words:
            if not isinstance(word, str) or not word.strip():
                raise UserError(f"{where}, {self.words}: {word!r} is not a word; correct it or remove the row.")
            text = f"{text} {word.strip()}" if text else word.strip()
            starts.append(len(text))  # where the word ends
        ids = self.tokenizer.encode(text)
        ends = [end for _, end in self.tokenizer.spans(text)]
        of_word = np.searchsorted(starts, ends, side="left").tolist()
        firsts = {word: position for position, word in reversed([*enumerate(of_word)])}
        lost = next((word for number, word in enumerate(words) if number not in firsts), None)
        if lost is not None:
            raise UserError(f"{where}: the tokenizer has no token for {lost!r}; remove the word, or take another one.")
        found: list[str | None] = [None] * len(ids)
        for word, position in firsts.items():
            found[position] = tags[word]
        self.cut += len(ids) > self.length
        return ids[: self.length], found[: self.length]

    def _tag(self, cell: Any, where: str) -> str:
        if isinstance(cell, int | np.integer) and not isinstance(cell, bool):
            if self.known is None or not 0 <= cell < len(self.known):
                what = "has no name" if self.known is None else f"is none of the {len(self.known)} tags"
                raise UserError(f"{where}: the tag {cell} {what}; give `names`, the names of all tags in their order.")
            return self.known[int(cell)]
        tag = composed(label_of(cell, where))
        if self.known is not None and tag not in self.known:
            raise UserError(f"{where}: {tag} is not among the tags {', '.join(self.known)}; correct it or `names`.")
        return tag


class PlainTexts(TokenSource):
    """Texts for a language model, which predicts each token from those before it. A row is a sample.

    Args:
        path: A .jsonl, .csv or .parquet file, or a dataset for `datasets`, by its name on the hub or the folder that
            save_to_disk wrote.
        tokenizer: A tokenizer.json, a folder with one, a Hugging Face name, or bytes; all parties must name the same.
        name: Name of the source; None takes the last part of path.
        text: Column or key of the texts.
        length: Most tokens of a text, 2 or more, which all parties must share; what is longer is cut.
        subset: Configuration of a dataset; None takes the only one.
        split: Split of a dataset.
        revision: Commit or tag of a dataset on the hub; None takes the newest.
        data_files: Local files or glob patterns, for the kinds of datasets that need them.
        licence: Licence of the texts, for the record.

    Raises:
        UserError: If the file or the tokenizer does not exist.
    """

    def __init__(
        self,
        path: str,
        tokenizer: str,
        name: str | None = None,
        text: str = "text",
        length: int = 128,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        data_files: list[str] | None = None,
        licence: str = "unknown",
    ) -> None:
        hub = {"subset": subset, "split": split, "revision": revision, "data_files": data_files}
        super().__init__(path, tokenizer, name, length, hub, licence, _TABLES, (text,))
        self.text = text

    def samples(self) -> Samples:
        """Return the texts in order; the target of each token is the next one.

        Raises:
            UserError: If a row has no text, or one of a single token. The message names it.
        """
        x = self.ids(self.rows())
        return Samples(x, next_tokens(x), (NEXT_TOKEN,), self.keys(len(x)), target="text")

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of local files."""
        return {"text": self.text, **super().facts()}

    def row(
        self, row: Mapping[str, Any], features: Mapping[str, Any], where: str
    ) -> tuple[list[int], list[str | None]]:
        """Return the token ids of a row, after those with which the tokenizer begins a text."""
        text = cell_of(row, self.text, where)
        ids = self.tokenizer.prompt(text) if isinstance(text, str) and text.strip() else []
        if len(ids) < 2:
            raise UserError(
                f"{where}: {self.text} is {str(text)[:50]!r}, but must be a text of two or more tokens; fill it or "
                "remove the row."
            )
        self.cut += len(ids) > self.length
        return ids[: self.length], []


def _conll_rows(path: Path, of_words: str, of_tags: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Yield the words and tags of each text of a CoNLL file, by these names."""
    words, tags, first = list[str](), list[str](), 1
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid UTF-8 ({error}); convert the file.") from error
    for number, line in enumerate([*lines, ""], start=1):
        cells = line.split()
        if cells and cells[0] != _DOCUMENT:
            if len(cells) < 2:
                raise UserError(f"{path}, line {number} has no tag after {cells[0]!r}; add it or remove the line.")
            words.append(cells[0])
            tags.append(cells[-1])
            continue
        if words:
            yield f"{path}, line {first}", {of_words: words, of_tags: tags}
        words, tags, first = [], [], number + 1


def _names(feature: Any) -> list[str] | None:
    """Return the names of the tags of a dataset's column of lists, if it defines any."""
    names = getattr(getattr(feature, "feature", None), "names", None)
    return [composed(one) for one in names] if names else None


def _listed(cell: Any, where: str) -> list[Any]:
    if not isinstance(cell, list | tuple | np.ndarray):
        raise UserError(
            f"{where} is {str(cell)[:50]!r}, but must be a list, an entry for each word; name another column."
        )
    return list(cell)
