"""Our token stream beside a memory-mapped array, litdata and webdataset, each with one data-loading process.

    python benchmarks/data_stream.py --output data_stream.json

Text that is always there is prepared once, as bytes; the contenders read the same tokens in batches of the same shape.
Before the timing, each contender's rows are looked up in the text. A round begins with a new loader and is timed from
its first batch on; how long that one took is a column of its own. Litdata is left out with a note if it is missing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from layers import Mismatch
from side_by_side import (
    Contender,
    OtherWork,
    arguments,
    cell,
    finish,
    markdown,
    measure,
    new_result,
    progress,
    ratios,
)
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lit_core.corpora import Austen, Document, PythonStdlib
from lit_core.data import MixtureStream, ShardSet, StreamLoader, TokenWindows, write_shard
from lit_core.prepare import prepare

MAP, OURS, LITDATA, WEBDATASET = "memory map", "ours", "litdata", "webdataset"
PEERS = (LITDATA, WEBDATASET)
SHARD = 1000  # sequences per tar file of webdataset, and as many wait in its shuffle
CHECKED = 8  # batches that are looked up in the text


class Stdlib(PythonStdlib):
    """A part of the standard library.

    Args:
        name: ``modules``, which are one file each, or ``packages``, all else.
        files: How many files to take, the first ones; None takes all.
    """

    def __init__(self, name: str, files: int | None = None) -> None:
        super().__init__()
        self.name, self.count = name, files

    def documents(self) -> Iterator[Document]:
        """Yield the source files in the order of their names."""
        inside = self.name == "packages"
        return islice((document for document in super().documents() if ("/" in document.id) == inside), self.count)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        sources: Names of the sources; several are mixed by their sizes.
        length: Tokens per sequence; a row of a batch has one more.
        sequences: Sequences per batch.
        batches: Batches per round; all of them lie within the first epoch.
    """

    sources: tuple[str, ...]
    length: int
    sequences: int
    batches: int


def cases(quick: bool) -> list[Case]:
    """Return the rows of the table."""
    sizes = [(32, 4, 10)] if quick else [(512, 8, 1000), (2048, 8, 250)]
    return [Case(names, *size) for names in (("packages",), ("packages", "modules", "austen")) for size in sizes]


@dataclass
class Feed:
    """A contender.

    Attributes:
        loader: Makes a new loader.
        rows: Turns one of its batches into int64 of shape ``(sequences, length + 1)``; not timed, since a training step
            takes inputs and labels as they come or as views.
    """

    loader: Callable[[], Any]
    rows: Callable[[Any], Tensor] = lambda batch: batch


def read_tokens(folder: Path) -> np.ndarray:
    """Return all tokens of a shard set in one row."""
    shards = ShardSet(folder)
    return np.concatenate([shards[number]["npy"] for number in range(len(shards))])


class RandomWindows(IterableDataset[Tensor]):
    """Batches of windows at random places of memory-mapped arrays; larger arrays are drawn from more often.

    Args:
        files: Files of uint16.
        case: Shape of a batch.
    """

    def __init__(self, files: list[Path], case: Case) -> None:
        self.files, self.case = files, case

    def __iter__(self) -> Iterator[Tensor]:
        arrays = [np.memmap(file, dtype=np.uint16, mode="r") for file in self.files]
        sizes = np.array([len(array) for array in arrays])
        generator, width = np.random.default_rng(0), self.case.length + 1
        while True:
            drawn = generator.choice(len(arrays), self.case.sequences, p=sizes / sizes.sum())
            starts = generator.integers(sizes[drawn] - width + 1)
            rows = [arrays[place][start : start + width] for place, start in zip(drawn, starts, strict=True)]
            yield torch.from_numpy(np.stack(rows).astype(np.int64))


def memory_map(tokens: dict[str, np.ndarray], folder: Path, case: Case) -> Feed:
    """Write the tokens as plain arrays and read them at random places, as short training scripts do."""
    for name, row in tokens.items():
        row.tofile(folder / f"{name}.bin")
    dataset = RandomWindows([folder / f"{name}.bin" for name in tokens], case)
    return Feed(partial(DataLoader, dataset, batch_size=None, num_workers=1))


def ours(root: Path, case: Case) -> Feed:
    """Read the prepared shards as `TokenDataModule` does."""

    def loader() -> StreamLoader:
        windows = {name: TokenWindows(root / name / "train", case.length) for name in case.sources}
        size = case.sequences
        return StreamLoader(MixtureStream(windows, global_batch_size=size, micro_batch_size=size), num_workers=1)

    return Feed(loader, lambda batch: torch.cat([batch["input_ids"], batch["labels"][:, -1:]], dim=1))


def itself(value: Any) -> Any:
    """Return what is given: litdata wants a function that makes the data."""
    return value


def to_int64(row: Any) -> Tensor:
    """Return a row of tokens as embeddings take it."""
    return torch.from_numpy(np.asarray(row).astype(np.int64))


def litdata(tokens: dict[str, np.ndarray], folder: Path, case: Case) -> Feed:
    """Write the tokens as chunks of litdata and read them with its TokensLoader, shuffled."""
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader, optimize

    for name, row in tokens.items():
        optimize(
            itself,
            [row],
            output_dir=str(folder / name),
            chunk_bytes="64MB",
            num_workers=1,
            item_loader=TokensLoader(),
            start_method=multiprocessing.get_start_method(),  # else it changes everybody's
            verbose=False,
        )

    def loader() -> Any:
        read = partial(StreamingDataset, shuffle=True, seed=0, transform=to_int64)
        parts = [read(str(folder / name), item_loader=TokensLoader(case.length + 1)) for name in tokens]
        mixed = parts[0] if len(parts) == 1 else CombinedStreamingDataset(parts, seed=0)
        return StreamingDataLoader(mixed, batch_size=case.sequences, num_workers=1)

    return Feed(loader)


def stacked(rows: list[np.ndarray]) -> Tensor:
    """Return rows as one tensor."""
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def plain_webdataset(tokens: dict[str, np.ndarray], folder: Path, case: Case) -> Feed:
    """Write each sequence as a member of a tar file and read these with webdataset, shuffled."""
    width = case.length + 1
    shards: dict[str, list[str]] = {}
    for name, row in tokens.items():
        starts = range(0, len(row) - width + 1, case.length)
        (folder / name).mkdir()
        shards[name] = [str(folder / name / f"{first:08}.tar") for first in range(0, len(starts), SHARD)]
        for file, first in zip(shards[name], range(0, len(starts), SHARD), strict=True):
            samples = (
                {"__key__": f"{start:09}", "npy": row[start : start + width]} for start in starts[first:][:SHARD]
            )
            write_shard(file, samples)

    def loader() -> Any:
        parts = [
            webdataset.WebDataset(files, shardshuffle=len(files)).repeat().shuffle(SHARD, initial=SHARD)
            for files in shards.values()
        ]
        sizes = [len(row) for row in tokens.values()]
        mixed = parts[0] if len(parts) == 1 else webdataset.RandomMix(parts, sizes)
        pipeline = webdataset.DataPipeline(
            mixed,
            webdataset.decode(),
            webdataset.to_tuple("npy"),
            webdataset.map(itemgetter(0)),
            webdataset.batched(case.sequences, collation_fn=stacked),
        )
        return webdataset.WebLoader(pipeline, batch_size=None, num_workers=1)

    return Feed(loader)


def build(root: Path, folder: Path, case: Case) -> tuple[dict[str, Feed], dict[str, str]]:
    """Write the tokens in each contender's format.

    Args:
        root: Folder of the prepared sources.
        folder: An empty folder for the other formats.
        case: What is read.

    Returns:
        Contenders by name; what was left out, by name, and why.
    """
    tokens = {name: read_tokens(root / name / "train") for name in case.sources}
    for name in (MAP, *PEERS):
        (folder / name).mkdir()
    feeds = {
        MAP: memory_map(tokens, folder / MAP, case),
        OURS: ours(root, case),
        WEBDATASET: plain_webdataset(tokens, folder / WEBDATASET, case),
    }
    if find_spec("litdata") is None:
        return feeds, {LITDATA: "it is not installed; benchmarks/requirements.txt names it."}
    feeds[LITDATA] = litdata(tokens, folder / LITDATA, case)
    return feeds, {}


def find(row: np.ndarray, tokens: np.ndarray) -> int | None:
    """Return the first place where a row of tokens lies in a longer one; None if there is none."""
    places = np.arange(len(tokens) - len(row) + 1)
    for offset, token in enumerate(row):
        places = places[tokens[places + offset] == token]
    return int(places[0]) if len(places) else None


def check(name: str, feed: Feed, tokens: dict[str, np.ndarray], case: Case) -> None:
    """See that a contender's batches have the right shape and hold windows of all sources, not in the text's order.

    Args:
        name: Its name in the table.
        feed: The contender.
        tokens: The text by source.
        case: What is read.

    Raises:
        Mismatch: If not.
    """
    iterator = iter(feed.loader())
    found: dict[str, list[int]] = {source: [] for source in tokens}
    for _ in range(CHECKED):
        rows_BW = feed.rows(next(iterator))
        if rows_BW.shape != (case.sequences, case.length + 1) or rows_BW.dtype != torch.int64:
            raise Mismatch(f"{name} gives batches of {rows_BW.dtype} of shape {tuple(rows_BW.shape)}.")
        for row in rows_BW.numpy():
            places = {source: place for source, text in tokens.items() if (place := find(row, text)) is not None}
            if not places:
                raise Mismatch(f"{name} gives a row that is nowhere in the text.")
            for source, place in places.items():
                found[source].append(place)
    for source, places_of in found.items():
        if not places_of:
            raise Mismatch(f"{name} gives no row of {source}.")
        if len(places_of) > 1 and places_of == sorted(places_of):
            raise Mismatch(f"{name} gives the rows of {source} in the order of the text.")


def start(feed: Feed, waits: list[float]) -> Any:
    """Make a loader and wait for its first batch; note how long that took."""
    before = time.perf_counter()
    iterator = iter(feed.loader())
    next(iterator)
    waits.append(time.perf_counter() - before)
    return iterator


def read(batches: int, iterator: Any) -> None:
    """Take batches."""
    for _ in range(batches):
        next(iterator)


def run(case: Case, root: Path, rounds: int, warm_up: int) -> dict[str, Any]:
    """Write, check and time one case; return its ratios and what else belongs in the table."""
    with tempfile.TemporaryDirectory() as name:
        feeds, left_out = build(root, Path(name), case)
        tokens = {source: read_tokens(root / source / "train") for source in case.sources}
        for contender, feed in feeds.items():
            check(contender, feed, tokens, case)
        waits: dict[str, list[float]] = {name: [] for name in feeds}
        contenders = [
            Contender(name, partial(read, case.batches), partial(start, feed, waits[name]))
            for name, feed in feeds.items()
        ]
        others = OtherWork()
        seconds = measure(contenders, rounds, warm_up)
    return {
        **vars(case),
        "tokens": {source: len(row) for source, row in tokens.items()},
        "ratios": ratios(seconds, MAP),
        "seconds": seconds,
        "seconds_to_first_batch": {name: times[warm_up:] for name, times in waits.items()},
        "cores_busy_with_others": others.cores(),
        "left_out": left_out,
    }


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result with its notes."""
    names = (OURS, *PEERS)
    rows = []
    for case in result["cases"]:
        measured, waits = case["ratios"], case["seconds_to_first_batch"]
        tokens = case["batches"] * case["sequences"] * case["length"]
        rows.append(
            [
                f"{len(case['sources'])}, {case['length']}",
                f"{case['batches']} × {case['sequences']} × {case['length']}",
                *(f"{tokens / measured[name]['milliseconds'] / 1e3:.2f}" for name in (MAP, OURS)),
                *(cell(measured.get(name), bold=name == OURS) for name in names),
                *(f"{1e3 * statistics.median(waits[name]):.0f}" if name in waits else "–" for name in (MAP, *names)),
            ]
        )
    header = ["sources, length", "tokens", *(f"{name}, M tokens/s" for name in (MAP, OURS)), *names]
    notes = {f"{name} is left out: {why}" for case in result["cases"] for name, why in case["left_out"].items()}
    return "\n\n".join([markdown([*header, *(f"{name}, first ms" for name in (MAP, *names))], rows), *sorted(notes)])


def main() -> None:
    """Prepare the text, time all cases, print the table and write the numbers."""
    options = arguments(__doc__)
    result, todo = new_result("data_stream", options, ("torch", "webdataset", "litdata")), cases(options.quick)
    with tempfile.TemporaryDirectory() as name:
        with contextlib.redirect_stdout(None):
            corpora = [*(Stdlib(part, 20 if options.quick else None) for part in ("packages", "modules")), Austen()]
            prepare(name, corpora, tokenizer="bytes", max_bytes=40_000 if options.quick else None)
        for index, case in enumerate(todo, start=1):
            progress(f"[{index}/{len(todo)}] {len(case.sources)} sources, length {case.length}")
            result["cases"].append(run(case, Path(name), result["rounds"], result["warm_up"]))
    finish(result, options.output)
    print(table(result))


if __name__ == "__main__":
    main()
