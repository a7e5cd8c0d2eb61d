"""Table of former import paths and config paths, by which old configs, checkpoints and commands still work.

A string that does not lead to a class or function by these tables stays as it is. A present module is imported only
where a string begins with its former path.
"""

from __future__ import annotations

import pydoc
from typing import Any

#: Modules with classes or functions that a config or a checkpoint can name; none of the former modules exists any more.
MOVED_MODULES = {
    "lit_core.checkpoint": "lit_core.lightning.checkpoint",
    "lit_core.debian": "lit_core.fetch.debian",
    "lit_core.devices": "lit_core.lightning.devices",
    "lit_core.loggers": "lit_core.lightning.loggers",
    "lit_core.pretrained": "lit_core.lm.pretrained",
    "lit_core.schedules": "lit_core.lightning.schedules",
    "lit_core.tokenizer": "lit_core.lm.tokenizer",
    "lit_detect.attack": "lit_detect.commands.attack",
    "lit_detect.experiment": "lit_detect.study",
    "lit_detect.generate": "lit_detect.generation.generate",
    "lit_detect.gruen": "lit_detect.scoring.gruen",
    "lit_detect.masked": "lit_detect.scoring.masked_language_model",
    "lit_detect.ngram": "lit_detect.generation.ngram_model",
    "lit_detect.normalize": "lit_detect.language.normalize",
    "lit_detect.parts_of_speech": "lit_detect.language.parts_of_speech",
    "lit_detect.similarity": "lit_detect.language.similarity",
    "lit_detect.wordnet": "lit_detect.language.wordnet",
    "lit_detect.words": "lit_detect.language.word_vectors",
    "lit_moe.callbacks.replay_mixing": "lit_core.callbacks.replay_mixing",
    "lit_moe.experiment": "lit_moe.study",
    "lit_moe.reference": "lit_moe.callbacks.reference",
    "lit_moe.strategy": "lit_moe.parallel.strategy",
    "lit_valuation.exchange.rank": "lit_valuation.commands.rank",
    "lit_valuation.noise": "lit_valuation.data.noise",
    "lit_valuation.parties": "lit_valuation.data.division",
    "lit_valuation.planting": "lit_valuation.data.planting",
    "lit_valuation.retrain": "lit_valuation.training.retrain",
    "lit_valuation.simulate": "lit_valuation.study",
    "lit_valuation.simulate_tables": "lit_valuation.study",
    "lit_valuation.subset": "lit_valuation.data.weighted_subset",
}

#: Single classes and functions: renamed ones, and those of modules that exist still. They come before the modules.
MOVED_NAMES = {
    "lit_core.data.stream.Source": "lit_core.data.stream.SampleSource",
    "lit_core.study.claims.AtLeast": "lit_core.study.criteria.AtLeast",
    "lit_core.study.claims.BudgetRatio": "lit_core.study.criteria.BudgetRatio",
    "lit_core.study.claims.Correlation": "lit_core.study.criteria.Correlation",
    "lit_core.study.claims.Level": "lit_core.study.criteria.Level",
    "lit_core.study.claims.PairedGain": "lit_core.study.criteria.PairedGain",
    "lit_detect.data.PartStream": "lit_detect.data.module.SubsetStream",
    "lit_detect.attack.load_detector": "lit_detect.loading.load_detector",
    "lit_detect.attacks.raid.PlaceAttack": "lit_detect.attacks.raid.SpanAttack",
    "lit_detect.detectors.ensemble.trained": "lit_detect.loading.trained",
    "lit_detect.detectors.trained": "lit_detect.loading.trained",
    "lit_detect.words.Synonyms": "lit_detect.language.synonyms.Synonyms",
    "lit_valuation.exchange.rank.Home": "lit_valuation.exchange.acceptance.TrainerData",
    "lit_valuation.parties.without_copies": "lit_valuation.data.division.remove_duplicates",
    "lit_valuation.retrain.Recipe": "lit_valuation.training.retrain.TrainingRecipe",
    "lit_valuation.retrain.load_task": "lit_valuation.training.loading.load_task",
    "lit_valuation.subset.Rows": "lit_valuation.data.weighted_subset.LoaderRows",
    "lit_valuation.subset.Subset": "lit_valuation.data.weighted_subset.WeightedSubset",
    "lit_valuation.training.retrain.load_task": "lit_valuation.training.loading.load_task",
}
#: Packaged configs, relative to their folder.
MOVED_CONFIGS = {
    "moe/real/prepare.yaml": "moe/prepare/smollm2_german.yaml",
    "moe/real/smollm2_german.yaml": "moe/fit/smollm2_german.yaml",
    "moe/schedule/cosine_inf.yaml": "moe/scheduler/cosine_inf.yaml",
    "moe/schedule/inv_sqrt_inf.yaml": "moe/scheduler/inv_sqrt_inf.yaml",
    "moe/schedule/warmup_cosine.yaml": "moe/scheduler/warmup_cosine.yaml",
    "trainer/ep_cpu2.yaml": "moe/trainer/ep_cpu2.yaml",
    "trainer/fsdp2_cpu2.yaml": "moe/trainer/fsdp2_cpu2.yaml",
    "trainer/gpu8_fsdp2.yaml": "moe/trainer/gpu8_fsdp2.yaml",
    "valuation/fit/gradient_matching.yaml": "valuation/callbacks/gradient_matching.yaml",
    "valuation/prepare/digits.yaml": "valuation/divide/digits.yaml",
    "valuation/prepare/fashion_backgrounds.yaml": "valuation/divide/fashion_backgrounds.yaml",
    "valuation/prepare/fashion_noise.yaml": "valuation/divide/fashion_noise.yaml",
    "valuation/prepare/fashion_overlap.yaml": "valuation/divide/fashion_overlap.yaml",
    "valuation/prepare/hugging_face.yaml": "valuation/divide/hugging_face.yaml",
    "valuation/prepare/image_folder.yaml": "valuation/divide/image_folder.yaml",
    "valuation/prepare/letter.yaml": "valuation/divide/letter.yaml",
    "valuation/prepare/newsgroups.yaml": "valuation/divide/newsgroups.yaml",
    "valuation/prepare/satellite.yaml": "valuation/divide/satellite.yaml",
    "valuation/prepare/shard_folder.yaml": "valuation/divide/shard_folder.yaml",
    "valuation/prepare/shuttle.yaml": "valuation/divide/shuttle.yaml",
    "valuation/prepare/table.yaml": "valuation/divide/table.yaml",
    "valuation/prepare/tumours.yaml": "valuation/divide/tumours.yaml",
    "valuation/quickstart.yaml": "valuation/quickstart/chosen.yaml",
}

#: Arguments that a verb has no more, by its function and the argument, with the sentence that tells what to do.
MOVED_ARGUMENTS = {
    ("lit_valuation.commands.prepare.prepare", argument): f"{argument} is not an argument of prepare, which takes one "
    "party's own data; to divide data among simulated owners, give the same arguments to `lit-valuation divide`."
    for argument in ("division", "noise", "planting")
}


def current_arguments(kept: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a module that a checkpoint keeps without those that are refused, and had no effect.

    Args:
        kept: The arguments. Beside ``hugging_face``, lit_moe's language model took any ``decoder`` and ``router``.
    """
    if not kept.get("hugging_face"):
        return kept
    decoder = kept.get("decoder")
    changed: dict[str, Any] = {}
    if isinstance(decoder, dict):
        changed["decoder"] = {key: value for key, value in decoder.items() if key == "vocab_size"}
    if kept.get("router"):
        changed["router"] = {"class_path": "lit_moe.nn.SinkhornRouter"}  # the default
    return kept | changed


def current_path(path: str) -> str:
    """Return the present import path for a former one; any other string is returned unchanged.

    Args:
        path: A dotted import path of a class, a function or a method. The path of a former module alone, or of a name
            that its present module does not have, such as ``lit_detect.words.txt``, is not an import path of these.
    """
    parts = path.split(".")
    for length in range(len(parts), 1, -1):
        former = ".".join(parts[:length])
        if former in MOVED_NAMES:
            return ".".join([MOVED_NAMES[former], *parts[length:]])
        if former in MOVED_MODULES and length < len(parts):
            present = MOVED_MODULES[former]
            return ".".join([present, *parts[length:]]) if _has(present, parts[length]) else path
    return path


def _has(module: str, name: str) -> bool:
    """Return whether a module has a name; also True where the module cannot be imported, so that the error names it."""
    try:
        return name.isidentifier() and pydoc.locate(f"{module}.{name}") is not None
    except pydoc.ErrorDuringImport:
        return True


def current_paths(plain: Any) -> Any:
    """Return plain values with all former import paths in them replaced.

    Args:
        plain: Mappings, lists and what they hold, such as a config or a checkpoint's hyperparameters. A value is
            replaced where it is an import path and nothing else; keys are not.
    """
    if isinstance(plain, str):
        return current_path(plain)
    if isinstance(plain, dict):
        return {key: current_paths(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [current_paths(value) for value in plain]
    return plain
