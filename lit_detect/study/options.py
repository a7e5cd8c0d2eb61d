"""Options of a cell of the detection study: the texts, the detector, the conditions of the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.study.options import check_choice
from lit_core.study.parts import Given, Part
from lit_detect.attacks import Attack
from lit_detect.callbacks import AdversarialTraining
from lit_detect.detectors import Detector, Ensemble
from lit_detect.formats import TextSource

#: Arguments that the cell gives to a detector and to an attack that have them.
DETECTOR_GIVEN, ATTACK_GIVEN = ("seed",), ("detector", "threshold")
DetectorPart = Annotated[Part[Detector], Given(DETECTOR_GIVEN)]
AttackPart = Annotated[Part[Attack], Given(ATTACK_GIVEN)]


@dataclass(frozen=True)
class DetectorRecipe:
    """How a trained detector is trained.

    Args:
        epochs: Number of times that each text is seen.
        batch_size: Texts per step.
        learning_rate: Learning rate of AdamW, with a linear warm-up over a tenth of the steps and a cosine schedule.
        precision: Number format in training and in scoring, as Lightning names it.
    """

    epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 1e-4
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        check_above(0, learning_rate=self.learning_rate)
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """What a cell of the detection study varies, and what its cells share.

    Args:
        detector: Name of the detector.
        detectors: The detectors by name.
        pairs: The source of texts to train on and to test on. If none has a split, each half of the pairs has one use.
        trained_on: Decodings of the training texts, by name, with + between them.
        priming: Tokens of human text that the generator was given in the training texts; none where that is not known.
        wild: Sources of texts to test on, by name; None for none. Texts that belong to a training text, such as human
            texts that several generators continue, are left out.
        recipe: How trained detectors are trained; None takes the defaults.
        train_texts: Largest number of texts of each class to train on; None takes all.
        test_texts: Largest number of texts of each class to test on in each condition; None takes all.
        folds: Number of parts into which the test texts are divided by document. Each seed is tested on one part, so
            that an interval over the seeds covers the choice of the texts as well.
        lengths: Numbers of words to which test texts are cut, each a condition; None for none.
        attacks: Attacks on the machine texts of the test, by name; None for none.
        attacked_texts: Largest number of texts that are attacked.
        queried_texts: The same for attacks that query a detector which needs a language model.
        defence: How the detector is made robust: training with attacks, or normalised Unicode.
        adversarial: Arguments of `AdversarialTraining`, for that defence; None for none.

    Raises:
        UserError: If a number is out of its range, the detector is unknown, the defence lacks its attacks, or a member
            of an ensemble sets what the cell gives.
    """

    detector: str
    detectors: dict[str, DetectorPart]
    pairs: Part[TextSource]
    trained_on: str
    priming: str
    wild: dict[str, Part[TextSource]] | None = None
    recipe: DetectorRecipe | None = None
    train_texts: int | None = None
    test_texts: int | None = None
    folds: int = 1
    lengths: list[int] | None = None
    attacks: dict[str, AttackPart] | None = None
    attacked_texts: int = 40
    queried_texts: int = 10
    defence: Literal["none", "adversarial", "normalized"] = "none"
    adversarial: Part[AdversarialTraining] | None = None

    def __post_init__(self) -> None:
        check_at_least(1, folds=self.folds, attacked_texts=self.attacked_texts, queried_texts=self.queried_texts)
        check_at_least(1, train_texts=self.train_texts, test_texts=self.test_texts)
        check_at_least(1, lengths=min(self.lengths or [1]))
        check_choice("detector", self.detector, self.detectors)
        if self.defence == "adversarial" and self.adversarial is None:
            raise UserError("defence is adversarial, but adversarial is missing; name the attacks that are trained on.")
        for detector in self.detectors.values():
            if detector.component is Ensemble:
                detector.members("members", Detector, DETECTOR_GIVEN)

    @property
    def decodings(self) -> list[str]:
        """Names of the decodings of the training texts."""
        return self.trained_on.split("+")
