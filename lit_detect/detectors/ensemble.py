"""`Ensemble`: the members' standardised scores, averaged with equal weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.detectors.base import Detector, FeatureDetector
from lit_detect.detectors.linear import LinearFeatureDetector
from lit_detect.functional.calibration import fit_platt


class Ensemble(LinearFeatureDetector):
    """Averages the standardised scores of several detectors with equal weights.

    Each member's scores are standardised to mean 0 and standard deviation 1 on the training set. A logistic regression
    with one slope maps their mean to the logit of machine. The weights are equal on purpose: fitted weights would
    favour the member that is best on the training set, and an attack or a new generator that evades this member would
    then evade the ensemble.

    Zero-shot members are not trained. Members with a logistic regression on features are fitted together with the
    ensemble, on the same texts, unless they are fitted already. Members that are trained by gradients are loaded from a
    finished run with ``lit_detect.loading.trained``, and are not trained further.

    Args:
        members: The detectors, 2 or more. A language model that several of them use is loaded once per member.

    Raises:
        UserError: If there are fewer than 2 members.
    """

    def __init__(self, members: list[Detector]) -> None:
        super().__init__()
        if len(members) < 2:
            raise UserError(f"members has {len(members)} detectors, but an ensemble needs 2 or more; add some.")
        self.members = torch.nn.ModuleList(members).requires_grad_(False)
        # Decided once: a member that is fitted here still returns its features, which the fitted weights are for.
        self._fitted_here = [
            member if isinstance(member, FeatureDetector) and not _is_fitted(member) else None for member in members
        ]
        self.name = f"Ensemble[{', '.join(member.name for member in members)}]"
        caps = [member.max_tokens for member in members]
        self.max_tokens = None if None in caps else max(cap for cap in caps if cap is not None)
        self.normalizes = all(member.normalizes for member in members)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the members' scores, or of their features where they are fitted with the ensemble."""
        names: list[str] = []
        for member, here in self._each():
            names += [f"{member.name}/{part}" for part in (("score",) if here is None else here.feature_names)]
        return tuple(names)

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the members' scores, or features where they are fitted with the ensemble, ``(n, columns)``.

        Raises:
            UserError: If a member that is trained by gradients was not trained.
        """
        for member, here in self._each():
            if here is None:
                member.require_fitted()
        columns = [
            member.score(texts)[:, None] if here is None else here.features(texts) for member, here in self._each()
        ]
        return torch.cat(columns, dim=1)

    def fit_features(self, features: Tensor, labels: Tensor) -> None:
        """Fit the unfitted members, the scale of each member, and the slope of their mean score."""
        for (_, here), part in zip(self._each(), self._parts(features), strict=True):
            if here is not None:
                here.fit_features(part, labels)
        scores = self.member_scores(features)
        deviations = scores.std(0)
        for (member, _), deviation in zip(self._each(), deviations.tolist(), strict=True):
            if not deviation > 0:  # or not a number
                raise UserError(
                    f"The member {member.name} gives all training texts the same score, or one that is not a "
                    "number; leave it out."
                )
        slope, intercept = fit_platt(((scores - scores.mean(0)) / deviations).mean(1), labels)
        weight = slope / (len(self.members) * deviations)
        self._fitted = torch.cat((weight, (intercept - weight @ scores.mean(0))[None]))

    def score_features(self, features: Tensor) -> Tensor:
        """Return the logits of machine ``(n,)``; see `FeatureDetector.score_features`."""
        self.require_fitted()
        return super().score_features(self.member_scores(features))

    def member_scores(self, features: Tensor) -> Tensor:
        """Return the score of each member, ``(n, members)``, from the columns of `features`."""
        columns = [
            part[:, 0].double() if here is None else here.score_features(part)
            for (_, here), part in zip(self._each(), self._parts(features), strict=True)
        ]
        return torch.stack(columns, dim=1)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, not truncated, as the member with the fewest counts them."""
        counts = [member.count_tokens(texts) for member, _ in self._each()]
        return [min(row) for row in zip(*counts, strict=True)]

    def fill(self, texts: Sequence[str], window_tokens: int | None = None) -> list[float]:
        """Return the share that each text fills of what the member that reads least of it reads at once."""
        shares = [member.fill(texts, window_tokens) for member, _ in self._each()]
        return [max(row) for row in zip(*shares, strict=True)]

    def _each(self) -> list[tuple[Detector, FeatureDetector | None]]:
        """Return each member twice: the second is None if it is not fitted with the ensemble."""
        return list(zip(self.members, self._fitted_here, strict=True))  # type: ignore[arg-type]

    def _parts(self, features: Tensor) -> tuple[Tensor, ...]:
        """Split the columns of `features` by member."""
        return features.split([1 if here is None else len(here.feature_names) for here in self._fitted_here], dim=1)


def _is_fitted(member: Detector) -> bool:
    return isinstance(member, LinearFeatureDetector) and member.is_fitted
