"""The one way to judge a text: in windows that are read whole, by a threshold or a calibration, or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.calibration import ALL, Calibration
from lit_detect.detectors import Detector
from lit_detect.functional.calibration import Platt
from lit_detect.language.english import is_english
from lit_detect.language.normalize import normalize_text, spans_before
from lit_detect.language.repetition import repeated_share
from lit_detect.windows import Span, cut

Decision = Literal["human", "machine", "abstain"]
#: Goes through the batches of windows: shows how far it is, or ends the work by an exception.
Through = Callable[[Sequence[list[str]]], Iterable[list[str]]]
#: Tokens below which no text is judged, unless told otherwise.
MIN_TOKENS = 50


@dataclass(frozen=True)
class Window:
    """A part of a text that the detector read at once.

    Args:
        start: Offset of its first character in the text as it was found.
        end: Offset after its last character.
        score: Its score.
        is_flagged: Whether its score alone makes the text a machine's.
    """

    start: int
    end: int
    score: float
    is_flagged: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the window as JSON has it."""
        return {"start": self.start, "end": self.end, "score": self.score, "flagged": self.is_flagged}


@dataclass(frozen=True)
class Judgement:
    """What a detector says of a text.

    Args:
        decision: human, machine or abstain.
        score: The largest score of its windows; higher is machine.
        probability: Probability of machine, 0 to 1; None where the detector abstains or its scores were not mapped.
        p_value: Largest probability, in expectation, with which a human text like those of the calibration scores as
            high; None without a calibration that tells it.
        tokens: Number of tokens of the whole text.
        reason: Why the detector abstains; empty where it decides.
        windows: The windows in the order of the text, one or more.
    """

    decision: Decision
    score: float
    probability: float | None
    p_value: float | None
    tokens: int
    reason: str
    windows: tuple[Window, ...]


class _Read(NamedTuple):
    """A text as the detector reads it.

    Args:
        text: The text, normalised if the detector does so.
        parts: Its windows.
        spans: Where they stand in the text as it was found.
    """

    text: str
    parts: list[str]
    spans: Sequence[Span]


@dataclass(frozen=True)
class Judge:
    """A detector with everything that is needed to judge texts as they were found.

    A text that is longer than what the detector reads at once is cut into overlapping windows, and its score is the
    largest of theirs. The detector abstains from a text of fewer than `min_tokens` tokens, or without a finite score,
    or whose length or kind the calibration does not cover; without any threshold; and from several windows without
    a calibration, since a fitted threshold is for one.

    Args:
        detector: The detector; it normalises Unicode where it was trained so.
        threshold: Score of a window from which the fit calls it a machine's; None if nothing was fitted.
        platt: Map of the fit from the score of a window to a probability; None if nothing was fitted.
        calibration: What decides in place of the fitted threshold; None for nothing.
        min_tokens: Tokens below which it abstains; it always abstains from texts without any.
        window_tokens: Most tokens of a window; None takes as many as the detector reads at once.
        checkpoint_sha256: Hash of the checkpoint of the detector; None without one.

    Raises:
        UserError: If the calibration is of another detector, or of other windows.
    """

    detector: Detector
    threshold: float | None = None
    platt: Platt | None = None
    calibration: Calibration | None = None
    min_tokens: int = MIN_TOKENS
    window_tokens: int | None = None
    checkpoint_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.calibration is not None:
            self.calibration.check(self.name, self.window_tokens)

    @property
    def name(self) -> str:
        """Name of the detector."""
        return self.detector.name

    @property
    def least_tokens(self) -> int:
        """Number of tokens below which it abstains, 1 or more."""
        return max(1, self.min_tokens)

    def judge(
        self,
        texts: Sequence[str],
        groups: Sequence[str] | None = None,
        batch_size: int = 16,
        through: Through = iter,
    ) -> list[Judgement]:
        """Judge texts, in their order.

        Args:
            texts: The texts as they were found.
            groups: The group of each text, by which a calibration with groups decides; None for no groups.
            batch_size: Windows per forward pass.
            through: Goes through the batches.

        Raises:
            UserError: If it is a text alone, one of them is no text, or groups and texts differ in number.
        """
        _check(texts, groups)
        groups = [ALL] * len(texts) if groups is None else groups
        read = self._read(texts)
        rows = zip(read, self.count_tokens(texts), self._scores(read, batch_size, through), groups, strict=True)
        return [self._judgement(*row) for row in rows]

    def scores(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        """Return the score of each text, the largest of its windows, float64 ``(n,)``; see `judge`."""
        _check(texts)
        scores = map(_largest, self._scores(self._read(texts), batch_size))
        return torch.tensor([*scores], dtype=torch.float64)

    def repeated_shares(self, texts: Sequence[str]) -> list[float]:
        """Return how much of each text, or of the window where it is most, is repeated; see `repeated_share`."""
        _check(texts)
        return list(map(_repeated, self._read(texts)))

    def are_english(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each text, as the detector reads it, whether it is in English."""
        return [is_english(self._normalized(text)) for text in texts]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text; none for blanks, whatever the tokenizer makes of them."""
        counts = self.detector.count_tokens(texts)
        return [count if text.strip() else 0 for text, count in zip(texts, counts, strict=True)]

    def long_enough(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each text whether it has the tokens below which the detector abstains."""
        return [count >= self.least_tokens for count in self.count_tokens(texts)]

    def need_windows(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each text whether it is longer than what the detector reads at once."""
        return [share > 1 for share in self.detector.fill(texts, self.window_tokens)]

    def _normalized(self, text: str) -> str:
        return normalize_text(text) if self.detector.normalizes else text

    def _read(self, texts: Sequence[str]) -> list[_Read]:
        """Return the texts as the detector reads them, in windows."""
        read = list(map(self._normalized, texts))
        cuts = [cut(self.detector, text, self.window_tokens) for text in read]
        parts = [[text[start:end] for start, end in spans] for text, spans in zip(read, cuts, strict=True)]
        return list(map(_Read, read, parts, map(_found, texts, read, cuts)))

    def _scores(self, read: Sequence[_Read], batch_size: int, through: Through = iter) -> list[list[float]]:
        """Return the scores of the windows of each text; equal windows are scored once."""
        different = sorted(dict.fromkeys(part for one in read for part in one.parts), key=len, reverse=True)
        scores: dict[str, float] = {}
        # of similar lengths, which need little padding
        batches = [different[first : first + batch_size] for first in range(0, len(different), batch_size)]
        for batch in through(batches):
            scores |= zip(batch, self.detector.score(batch).tolist(), strict=True)
        return [[scores[part] for part in one.parts] for one in read]

    def _judgement(self, read: _Read, tokens: int, scores: Sequence[float], group: str) -> Judgement:
        score = _largest(scores)
        p_value, is_machine, reason = self._verdict(score, tokens, len(scores), group)
        if p_value is not None and (other := self._other_kind(read)):
            p_value, is_machine, reason = None, None, other
        decision: Decision = "abstain" if is_machine is None else "machine" if is_machine else "human"
        platt = self.platt if self.calibration is None or len(scores) == 1 else None
        if self.calibration is not None and self.calibration.platt is not None:
            platt = self.calibration.platt
        exact = torch.tensor(score, dtype=torch.float64)
        probability = None if is_machine is None or platt is None else float(platt(exact))
        told = tuple(
            Window(*span, one, bool(is_machine) and bool(self._verdict(one, tokens, 1, group)[1]))
            for span, one in zip(read.spans, scores, strict=True)
        )
        return Judgement(decision, score, probability, p_value, tokens, reason, told)

    def _other_kind(self, read: _Read) -> str:
        """Return why a text is of another kind than the human texts of the calibration; empty if it is not."""
        if self.calibration is None:
            return ""
        return self.calibration.kind(is_english(read.text), _repeated(read))

    def _verdict(self, score: float, tokens: int, windows: int, group: str) -> tuple[float | None, bool | None, str]:
        """Return the p-value, whether it is a machine's, and else why not."""
        if tokens < self.least_tokens:
            return None, None, f"{tokens} tokens, fewer than {self.least_tokens}"
        if not math.isfinite(score):
            return None, None, "the score is not a finite number"
        if self.calibration is not None:
            return self.calibration.judge(score, tokens, group)
        if self.threshold is None:
            return None, None, "no threshold; run `lit-detect calibrate`"
        if windows > 1:
            return None, None, f"{windows} windows, and a threshold for one; run `lit-detect calibrate`"
        return None, score >= self.threshold, ""


def _check(texts: Sequence[str], groups: Sequence[str] | None = None) -> None:
    """Refuse what is no list of texts, such as a text alone, whose letters would be judged one by one."""
    if isinstance(texts, str):
        raise UserError("`texts` is one text, but must be a list of texts; give [text].")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"`texts` has a {type(text).__name__} at index {number}, but must have texts; give a str.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"`texts`, index {number}, holds half a surrogate pair at character {error.start}; decode it again, or "
                "remove that character."
            ) from None
    if groups is not None and len(groups) != len(texts):
        raise UserError(f"There are {len(texts):,} texts, but {len(groups):,} `groups`; give the group of each text.")


def _found(text: str, read: str, spans: Sequence[Span]) -> Sequence[Span]:
    """Return the windows of a text as the detector reads it, as windows of the text as it was found."""
    if len(spans) == 1 and spans[0] == (0, len(read)):
        return [Span(0, len(text))]
    return spans if read == text else [Span(*span) for span in spans_before(text, read, spans)]


def _repeated(read: _Read) -> float:
    return max(map(repeated_share, {read.text, *read.parts}))


def _largest(scores: Sequence[float]) -> float:
    """Return the largest score, or one that is not a finite number if there is such."""
    return next((score for score in scores if not math.isfinite(score)), max(scores))
