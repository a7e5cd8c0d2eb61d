"""The LightningDataModule of token sequences, from new and replayed sources."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

from lit_core.data import MixtureStream, StreamLoader, TokenWindows
from lit_core.data.module import StreamDataModule
from lit_core.errors import UserError, check_at_least, did_you_mean
from lit_core.files.paths import resolve_data_path
from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import rank_zero_warn


class TokenDataModule(StreamDataModule):
    """Streams token sequences from named sources: new ones by weight, replayed ones by the fraction of `ReplayMixing`.

    A source is a folder with the splits ``train``, ``val`` and ``test``, each a shard set as ``prepare`` writes it, or
    a file ``train.npy`` or ``train.bin`` of token ids and so on. Gradient accumulation follows from the batch sizes and
    the number of devices. Resuming needs the callback `ResumeStream`, replay needs `ReplayMixing`.

    Args:
        root: Folder of the sources, absolute, from the working directory, or below the data root.
        sources: Weight of each new source by name; any positive numbers.
        replay: Weight of each replayed source by name; empty replays nothing.
        validation: Names of the sources to validate and test on; None takes all.
        sequence_length: Tokens per sequence, 1 or more.
        global_batch_size: Sequences per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Sequences per device and forward pass.
        num_workers: Processes per loader that read data; 0 reads in the training process.
        seed: Seed of the order of the training data, 0 or more; None takes that of the run.
        document_mask: Whether a token attends only to its own document.
        validation_samples: Sequences per source of a validation during training; None takes all.
        test_samples: Sequences per source of a test; None takes all.
        tokenizer: Path of a tokenizer.json, a Hugging Face name, or bytes; None takes tokenizer.json of the root.
        paths: Folders of sources that do not lie below the root, by name.
        bin_dtype: Type of the token ids in .bin files; it must hold the largest id of the tokenizer.
        verify: Whether each shard's SHA-256 is compared with its index before the first step, and each token of a .npy
            or .bin file with the vocabulary.
        padded_vocab_size: Token ids of a model whose vocabulary is padded beyond that of the tokenizer; None for the
            tokenizer's own.
    """

    def __init__(
        self,
        root: str,
        sources: dict[str, float],
        replay: dict[str, float] | None = None,
        validation: list[str] | None = None,
        sequence_length: int = 512,
        global_batch_size: int = 32,
        micro_batch_size: int = 8,
        num_workers: int = 0,
        seed: int | None = None,
        document_mask: bool = False,
        validation_samples: int | None = None,
        test_samples: int | None = None,
        tokenizer: str | None = None,
        paths: dict[str, str] | None = None,
        bin_dtype: Literal["uint16", "uint32"] = "uint16",
        verify: bool = True,
        padded_vocab_size: int | None = None,
    ) -> None:
        super().__init__(global_batch_size, micro_batch_size, num_workers, seed)
        self.keep_arguments()
        self.root = resolve_data_path(root)
        self.sources = dict(sources)
        self.replay = dict(replay or {})
        self.paths = {name: resolve_data_path(path) for name, path in (paths or {}).items()}
        self.evaluated = list(validation) if validation is not None else [*self.sources, *self.replay]
        self.sequence_length = sequence_length
        self.document_mask = document_mask
        self.samples = {"val": validation_samples, "test": test_samples}
        self.tokenizer_spec = tokenizer
        self.bin_dtype = bin_dtype
        self.verify = verify
        self.padded_vocab_size = padded_vocab_size
        self._start: tuple[str, tuple[int, ...]] | None = None  # with which source's documents all begin
        self._check()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the sources were prepared with."""
        if self.tokenizer_spec is not None:
            return Tokenizer.load(self.tokenizer_spec)
        path = self.root / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                f"`data.root` is {self.root}, but there is no {path.name} in it; run `lit-moe prepare` with this "
                "root, or name the tokenizer in `data.init_args.tokenizer`."
            )
        return Tokenizer.load(str(path))

    @property
    def vocab_size(self) -> int:
        """Number of token ids; the model's vocabulary is linked to it."""
        own = int(self.tokenizer.vocab_size)
        if self.padded_vocab_size is None:
            return own
        if self.padded_vocab_size < own:
            raise UserError(
                f"`data.padded_vocab_size` is {self.padded_vocab_size}, but the tokenizer has {own} tokens; give the "
                "model's vocabulary size, which must not be smaller, or null."
            )
        return self.padded_vocab_size

    def setup(self, stage: str) -> None:
        """Open the sources, check their tokenizers and derive the gradient accumulation."""
        trainer = self.trainer
        assert trainer is not None
        if stage == "fit":
            for argument, names in (("sources", self.sources), ("replay", self.replay)):
                for name in names:
                    self._check_name(argument, name)
            self.start_training(self._mixture)
        splits = ["test"] if stage == "test" else ["val"]
        self._evaluation = {split: {name: self._windows(name, split) for name in self.evaluated} for split in splits}

    def val_dataloader(self) -> dict[str, StreamLoader]:
        """Return a loader per evaluated source."""
        return self._evaluation_loaders("val")

    def test_dataloader(self) -> dict[str, StreamLoader]:
        """Return a loader per evaluated source."""
        return self._evaluation_loaders("test")

    def _mixture(self, **layout: int) -> MixtureStream:
        self._check_replay_callback(self.trainer.callbacks)  # type: ignore[union-attr]
        new, replayed = (
            {name: self._windows(name, "train") for name in names} for names in (self.sources, self.replay)
        )
        return MixtureStream(new, self.sources, replayed, self.replay, **layout)

    def _evaluation_loaders(self, split: str) -> dict[str, StreamLoader]:
        return self.evaluation_loaders(self._evaluation[split], self.samples[split])

    def _windows(self, name: str, split: str) -> TokenWindows:
        folder = self.paths.get(name, self.root / name)
        path = next((p for p in (folder / split, folder / f"{split}.npy", folder / f"{split}.bin") if p.exists()), None)
        if path is None:
            raise UserError(
                f"The source {name} has no {split} split: there is neither {folder / split} nor a .npy or .bin file "
                "of that name; run `lit-moe prepare`, or correct `data.root` or `data.init_args.paths`."
            )
        windows = TokenWindows(
            path,
            self.sequence_length,
            tail=split != "train",
            document_mask=self.document_mask,
            dtype=self.bin_dtype if path.suffix == ".bin" else None,
            verify=self.verify,
        )
        if windows.tokenizer is None:
            windows.vocab_size = self.tokenizer.vocab_size
        if self.verify:
            windows.verify()
        theirs = windows.tokenizer["sha256"] if windows.tokenizer else self.tokenizer.sha256
        if theirs != self.tokenizer.sha256:
            raise UserError(
                f"The source {name} in {path} was prepared with the tokenizer {theirs[:12]}, but the data's is "
                f"{self.tokenizer.sha256[:12]}; prepare all sources with one tokenizer."
            )
        if windows.tokenizer:
            self._check_start(name, windows.start)
        return windows

    def _check_start(self, name: str, start: tuple[int, ...]) -> None:
        """Take from the sources with which tokens documents begin, and refuse two that do not agree."""
        first, taken = self._start or (name, start)
        if taken != start:
            raise UserError(
                f"The documents of {name} begin with the tokens {list(start)}, but those of {first} with "
                f"{list(taken)}, [] standing for none; prepare both in a new root, as one is of a former release."
            )
        if self._start is None and start != self.tokenizer.start:
            rank_zero_warn(
                f"The documents of {name} begin with the tokens {list(start)}, [] standing for none, but the "
                f"tokenizer's template begins a text with {list(self.tokenizer.start)}; what was prepared is kept, "
                "prepare it in a new root to follow the template."
            )
        self._start, self.tokenizer.start = (first, taken), taken

    def _check(self) -> None:
        """Check the arguments before any file is opened."""
        counts = {
            "sequence_length": self.sequence_length,
            "global_batch_size": self.global_batch_size,
            "micro_batch_size": self.micro_batch_size,
            "validation_samples": self.samples["val"],
            "test_samples": self.samples["test"],
            "padded_vocab_size": self.padded_vocab_size,
        }
        check_at_least(1, **counts)
        if not self.sources:
            raise UserError("`sources` is empty, but there is nothing to train on without one; name a source.")
        both = self.sources.keys() & self.replay.keys()
        if both:
            name = min(both)
            raise UserError(f"`replay` names {name}, which is in `sources` too; leave it in one of the two.")
        for argument, weights in (("sources", self.sources), ("replay", self.replay)):
            for name, weight in weights.items():
                if not 0 < weight < math.inf:
                    raise UserError(
                        f"`{argument}` gives {name} the weight {weight}, but a weight is above 0; leave the source "
                        "out or give a positive number."
                    )
        if not self.root.is_dir() and not self.paths.keys() >= {*self.sources, *self.replay, *self.evaluated}:
            raise UserError(
                f"`data.root` is {self.hparams['root']}, but there is no folder {self.root}; run `lit-moe prepare` "
                "with this root or correct it."
            )
        given = self.hparams["validation"] is not None
        for name in self.evaluated:
            self._check_name("validation" if given else "sources" if name in self.sources else "replay", name)

    def _check_name(self, argument: str, name: str) -> None:
        if name in self.paths or (self.root / name).is_dir():
            return
        known = [*self.paths, *sorted(path.name for path in self.root.glob("*") if path.is_dir())]
        raise UserError(
            f"`{argument}` names {name}, but there is no such source in {self.root}."
            + (did_you_mean(name, known) or f" There are {', '.join(known) or 'none'}.")
        )

    def _check_replay_callback(self, callbacks: list[Any]) -> None:
        """Check that a callback sets the replayed fraction, where there is something to replay."""
        from lit_core.callbacks.replay_mixing import ReplayMixing

        if self.replay and not any(isinstance(callback, ReplayMixing) for callback in callbacks):
            raise UserError(
                f"`replay` names {', '.join(self.replay)}, but no callback sets the replayed fraction; add "
                "lit_moe.callbacks.ReplayMixing to trainer.callbacks."
            )
