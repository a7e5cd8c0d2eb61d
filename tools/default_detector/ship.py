"""Writes what ships: coefficients with their provenance, and the scores of human texts by which others are judged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from default_detector.evaluate import FOREIGN, Study
from default_detector.measure import MAX_TOKENS
from lit_core.files.paths import atomic_write
from lit_core.lm.pretrained import SMOLLM2_SHA256
from lit_detect import default
from lit_detect.calibration import DEFAULT_CALIBRATION
from lit_detect.detectors.normalization import with_normalization
from lit_detect.functional.token_statistics import TOKEN_STATISTICS
from lit_detect.golden import golden_texts
from lit_detect.judging import Judge
from lit_detect.language.repetition import most_repeated

#: Digits after the point of a score, which is in log-odds.
_DIGITS = 6


def ship(study: Study) -> None:
    """Fit the model to all texts and write both files."""
    model = study.fitted()
    used = [row for row in study.rows if row.domain not in FOREIGN and not row.is_base]
    counts = Counter(f"{row.domain}, {row.generator}" for row in used)
    provenance: dict[str, Any] = {
        "made_by": "PYTHONPATH=tools python -m default_detector",
        "language_model": {"name": "SmolLM2-135M-Instruct", "sha256": SMOLLM2_SHA256, "dtype": "float32"},
        "texts_sha256": hashlib.sha256("".join(sorted(row.text for row in used)).encode()).hexdigest(),
        "texts": dict(sorted(counts.items())),
        "inverse_penalty": model.penalty,
        "seed": 0,
        "versions": {name: version(name) for name in ("lit-shift", "torch", "transformers", "scikit-learn")},
    }
    stored = {
        "weights": dict(zip(TOKEN_STATISTICS, model.weight.tolist(), strict=True)),
        "bias": model.bias,
        "max_tokens": MAX_TOKENS,
        "provenance": provenance,
    }
    atomic_write(default.COEFFICIENTS, json.dumps(stored, indent=1) + "\n")
    judge = Judge(with_normalization(default.default_detector()))
    golden = tuple(judge.scores(golden_texts()).tolist())
    calibration = replace(study.calibration(model), detector=judge.name, platt=study.platt(), golden=golden)
    shares = judge.repeated_shares([row.text for texts in study.humans().values() for row in texts])
    replace(calibration, in_english=True, most_repeated=most_repeated(shares)).save(DEFAULT_CALIBRATION)
    content = json.loads(DEFAULT_CALIBRATION.read_text(), parse_float=lambda number: round(float(number), _DIGITS))
    content.pop("record")  # which tells of the machine that made it
    atomic_write(DEFAULT_CALIBRATION, json.dumps(content) + "\n")
    print(f"{default.COEFFICIENTS}\n{DEFAULT_CALIBRATION}")
