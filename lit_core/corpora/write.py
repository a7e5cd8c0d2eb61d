"""Token shards from the documents of each split, written in this process or in several."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_core.corpora.gather import Span
from lit_core.data.shards import write_shard
from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import atomic_write
from lit_core.lm.tokenizer import Tokenizer

#: Tokens per member of a shard.
CHUNK = 65536


@dataclass(frozen=True)
class Job:
    """A shard to write.

    Args:
        text: File of gathered text.
        spans: The documents of the shard, in order.
        shard: The tar file to write.
        entry: File of its entry for the index; it exists only if the shard is complete.
        source: Name of the source, for messages.
        first: Whether the shard is the first of its split, which begins with an end-of-text token if no token of the
            tokenizer begins a document.
    """

    text: Path
    spans: Sequence[Span]
    shard: Path
    entry: Path
    source: str
    first: bool

    @property
    def size(self) -> int:
        """Bytes of text."""
        return sum(span.size for span in self.spans)


def jobs_of(text: Path, splits: Mapping[str, Sequence[Span]], folder: Path, source: str, shard_bytes: int) -> list[Job]:
    """Distribute documents over shards of about ``shard_bytes`` bytes of text; no document is divided.

    Args:
        text: File of gathered text.
        splits: Documents by split, in order.
        folder: Receives ``sets/{split}/000000.tar`` and so on, and the entries.
        source: Name of the source, for messages.
        shard_bytes: Bytes of text after which a shard is closed.

    Returns:
        A job per shard, in the order of the splits and documents.
    """
    jobs = []
    for split, spans in splits.items():
        rows: list[list[Span]] = [[]]
        room = shard_bytes
        for span in spans:
            if room <= 0:
                rows.append([])
                room = shard_bytes
            rows[-1].append(span)
            room -= span.size
        for number, row in enumerate(rows):
            shard = folder / "sets" / split / f"{number:06}.tar"
            jobs.append(Job(text, row, shard, folder / f"{split}-{number:06}.json", source, number == 0))
    return jobs


def token_dtype(tokenizer: Tokenizer) -> str:
    """Return the name of the smallest type that holds every token id."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def write_job(job: Job, tokenizer: Tokenizer, advance: Callable[[int], object]) -> None:
    """Write one shard and then its entry.

    Args:
        job: The shard.
        tokenizer: Converts text to tokens.
        advance: Called with the size of each document in bytes.

    Raises:
        UserError: If the tokenizer loses text.
        RunFailure: If the disk is full; no incomplete file is left.
    """
    lengths = tokenizer.byte_lengths()
    dtype = token_dtype(tokenizer)

    def samples() -> Iterator[dict[str, Any]]:
        stream = _documents(job, tokenizer, lengths, advance)
        for number, chunk in enumerate(_chunks(stream)):
            tokens = np.asarray(chunk, dtype=dtype)
            yield {
                "__key__": f"{job.shard.stem}-{number:06}",
                "npy": tokens,
                "__text_bytes__": 0 if number else job.size,  # only the sum over the shard is stored
            }

    entry = write_shard(job.shard, samples())
    atomic_write(job.entry, json.dumps(entry))


def _documents(
    job: Job, tokenizer: Tokenizer, lengths: np.ndarray, advance: Callable[[int], object]
) -> Iterator[list[int]]:
    """Yield tokens by document, with those that begin and end it; check that the tokens stand for the whole text."""
    if job.first and not tokenizer.start:
        yield [tokenizer.end_of_text]
    lost = 0
    with job.text.open("rb") as file:
        for span in job.spans:
            file.seek(span.offset)
            text = file.read(span.size).decode()
            ids = tokenizer.encode(text)
            # Tokenizers that are not exact replace blanks by marks, and add one before each document.
            size = len(tokenizer.normalize(text).encode()) if tokenizer.exact else span.size
            difference = abs(int(np.nansum(lengths[ids])) - size)  # unknown text is lost
            if tokenizer.exact and difference:
                raise RunFailure(
                    f"The tokens of a document of {job.source} stand for {difference} bytes more or less than its text "
                    f"({text[:40]!r}…); choose another tokenizer."
                )
            lost += max(difference - 1, 0)
            yield [*tokenizer.start, *ids, tokenizer.end_of_text]
            advance(span.size)
    if lost > 0.01 * job.size:
        raise UserError(
            f"The tokenizer does not keep the text of {job.source}: {lost} of {job.size} bytes differ after encoding, "
            "but at most 1 % may; choose a tokenizer that covers the characters of this text, such as a byte-level one."
        )


def _chunks(rows: Iterable[list[int]]) -> Iterator[list[int]]:
    """Cut a stream of tokens into rows of `CHUNK`, the last one shorter."""
    buffer: list[int] = []
    for row in rows:
        buffer += row
        if len(buffer) >= CHUNK:
            whole = len(buffer) // CHUNK * CHUNK
            for start in range(0, whole, CHUNK):
                yield buffer[start : start + CHUNK]
            buffer = buffer[whole:]
    if buffer:
        yield buffer


def write_jobs(jobs: Sequence[Job], tokenizer: Tokenizer, workers: int, advance: Callable[[int], object]) -> None:
    """Write shards; the result does not depend on the number of processes.

    Args:
        jobs: The shards that are missing.
        tokenizer: Converts text to tokens.
        workers: Number of processes; 1 writes in this process.
        advance: Called with the number of bytes of text written since the last call.

    Raises:
        RunFailure: If a process dies or the disk is full.
    """
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            write_job(job, tokenizer, advance)
        return
    # spawn: the caller may hold threads, and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Value("b", 0)
    reported = 0
    with ProcessPoolExecutor(
        min(workers, len(jobs)), context, _start_worker, (tokenizer.to_json(), done, stop)
    ) as pool:
        running: set[Future[None]] = set()
        try:
            # The largest shards are written first, so that no process works alone at the end.
            for job in sorted(jobs, key=lambda job: -job.size):
                try:
                    running.add(pool.submit(_work, job))
                except OSError as error:  # a process that dies while others are still started closes the pool's pipes
                    raise BrokenProcessPool(str(error)) from error
            while running:
                finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                count = done.value
                advance(count - reported)
                reported = count
        except BrokenProcessPool as error:
            raise RunFailure(
                "A worker process died, as happens when memory runs out or when a script calls prepare outside of "
                '`if __name__ == "__main__"`; try fewer workers.'
            ) from error
        finally:
            stop.value = 1  # after an error or an interruption, shards are not completed
            pool.shutdown(cancel_futures=True)


_worker: tuple[Tokenizer, Any, Any]


def _start_worker(tokenizer: str, done: Any, stop: Any) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker = Tokenizer.from_json(tokenizer), done, stop
    # A killed parent cannot stop its workers, which would wait for jobs forever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> None:
    tokenizer, done, stop = _worker

    def advance(count: int) -> None:
        if stop.value:
            raise RunFailure(f"{job.shard} was not finished, since the work was stopped; give the same command again.")
        with done.get_lock():
            done.value += count

    write_job(job, tokenizer, advance)
