"""Is this text machine-written, and does the detector survive the wild and an attacker?"""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_detect.callbacks import AdversarialTraining, RobustnessMonitor
    from lit_detect.data.module import TextDataModule
    from lit_detect.language.normalize import normalize_text
    from lit_detect.loading import load
    from lit_detect.module import DetectorTask

__all__ = ["AdversarialTraining", "DetectorTask", "RobustnessMonitor", "TextDataModule", "load", "normalize_text"]
__getattr__, __dir__ = exports(__name__)
