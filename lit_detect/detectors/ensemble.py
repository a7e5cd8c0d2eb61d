"""Several detectors with equal say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.detectors.base import Detector, FeatureDetector
from lit_detect.detectors.linear import LinearFeatureDetector
from lit_detect.functional.calibration import fit_platt


class Ensemble(LinearFeatureDetector):
    """Scores a text by the mean of several detectors' scores, each in units of its standard deviation.

    On the training set each member's scores are brought to mean 0 and standard deviation 1; a logistic regression of
    one slope turns their mean into the logit of machine. Members have equal weights: weights that are fitted would go
    to whichever member is best on the training set, and an attacker or new generator who defeats that one would defeat
    the ensemble.

    Zero-shot members need no training. Those with a logistic regression on features are fitted with the ensemble, to
    the same texts, unless they come fitted. Members trained by gradients come from a finished run, by
    ``lit_detect.loading.trained``, and are not trained further.

    Args:
        members: The detectors, 2 or more. Those that ask the same language model load and ask it once each.

    Raises:
        UserError: If there are fewer than 2 members.
    """

    def __init__(self, members: list[Detector]) -> None:
        super().__init__()
        if len(members) < 2:
            raise UserError(f"members has {len(members)} detectors, but an ensemble needs 2 or more; add some.")
        self.members = torch.nn.ModuleList(members).requires_grad_(False)
        # Not asked later: a member that is fitted here still gives its features, which the checkpoint's weights are of.
        self._fitted_here = [
            member if isinstance(member, FeatureDetector) and not _is_fitted(member) else None for member in members
        ]
        self.name = f"Ensemble[{', '.join(member.name for member in members)}]"
        caps = [member.max_tokens for member in members]
        self.max_tokens = None if None in caps else max(cap for cap in caps if cap is not None)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the members, or of their features."""
        names: list[str] = []
        for member, here in self._each():
            names += [f"{member.name}/{part}" for part in (("score",) if here is None else here.feature_names)]
        return tuple(names)

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the members' scores, or features where they are fitted with the ensemble, side by side."""
        columns = [
            member.score(texts)[:, None] if here is None else here.features(texts) for member, here in self._each()
        ]
        return torch.cat(columns, dim=1)

    def fit_features(self, features: Tensor, labels: Tensor) -> None:
        """Fit the members that need it, the scale of each, and the slope of their mean."""
        for (_, here), part in zip(self._each(), self._parts(features), strict=True):
            if here is not None:
                here.fit_features(part, labels)
        scores = self.member_scores(features)
        deviations = scores.std(0)
        for (member, _), deviation in zip(self._each(), deviations.tolist(), strict=True):
            if not deviation > 0:  # or not a number
                raise UserError(
                    f"The member {member.name} gives all training texts the same score, or one that is no number; "
                    "leave it out."
                )
        slope, intercept = fit_platt(((scores - scores.mean(0)) / deviations).mean(1), labels)
        weight = slope / (len(self.members) * deviations)
        self._fitted = torch.cat((weight, (intercept - weight @ scores.mean(0))[None]))

    def score_features(self, features: Tensor) -> Tensor:
        """Return the logits of machine ``(n,)``; see `FeatureDetector.score_features`."""
        self.require_fitted()
        return super().score_features(self.member_scores(features))

    def member_scores(self, features: Tensor) -> Tensor:
        """Return the score of each member, ``(n, members)``, from what `features` gave."""
        columns = [
            part[:, 0].double() if here is None else here.score_features(part)
            for (_, here), part in zip(self._each(), self._parts(features), strict=True)
        ]
        return torch.stack(columns, dim=1)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, uncut, in the units of the member that finds the fewest."""
        counts = [member.count_tokens(texts) for member, _ in self._each()]
        return [min(row) for row in zip(*counts, strict=True)]

    def _each(self) -> list[tuple[Detector, FeatureDetector | None]]:
        """Return each member, and the same again if it is fitted with the ensemble."""
        return list(zip(self.members, self._fitted_here, strict=True))  # type: ignore[arg-type]

    def _parts(self, features: Tensor) -> tuple[Tensor, ...]:
        """Divide features by members."""
        return features.split([1 if here is None else len(here.feature_names) for here in self._fitted_here], dim=1)


def _is_fitted(member: Detector) -> bool:
    return isinstance(member, LinearFeatureDetector) and member.is_fitted
