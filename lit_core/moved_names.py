"""Former import paths and config paths with the present ones, so that old configs, checkpoints and commands still work.

Nothing is imported here. A string that is not in the tables stays as it is.
"""

from __future__ import annotations

from typing import Any

#: Modules that moved as a whole; none of the former ones exists any more.
MOVED_MODULES = {
    "lit_core.checkpoint": "lit_core.lightning.checkpoint",
    "lit_core.debian": "lit_core.fetch.debian",
    "lit_core.decoding": "lit_core.lm.decoding",
    "lit_core.devices": "lit_core.lightning.devices",
    "lit_core.evaluating": "lit_core.lightning.evaluation_mode",
    "lit_core.exact": "lit_core.lightning.exact_buffers",
    "lit_core.hub": "lit_core.fetch.hub",
    "lit_core.logged": "lit_core.lightning.step_logging",
    "lit_core.loggers": "lit_core.lightning.loggers",
    "lit_core.optimizers": "lit_core.lightning.optimizers",
    "lit_core.paths": "lit_core.files.paths",
    "lit_core.pretrained": "lit_core.lm.pretrained",
    "lit_core.quiet": "lit_core.lm.transformers_logging",
    "lit_core.sampling": "lit_core.lm.sampling",
    "lit_core.schedules": "lit_core.lightning.schedules",
    "lit_core.sharded": "lit_core.lightning.sharded_checkpoint",
    "lit_core.tensorboard": "lit_core.lightning.tensorboard",
    "lit_core.tokenizer": "lit_core.lm.tokenizer",
    "lit_core.workplace": "lit_core.files.working_folder",
    "lit_detect.attack": "lit_detect.commands.attack",
    "lit_detect.calibrate": "lit_detect.commands.calibrate",
    "lit_detect.conditions": "lit_detect.records",
    "lit_detect.division": "lit_detect.data.splitting",
    "lit_detect.entities": "lit_detect.language.entities",
    "lit_detect.experiment": "lit_detect.study.detection",
    "lit_detect.generate": "lit_detect.generation.generate",
    "lit_detect.gruen": "lit_detect.scoring.gruen",
    "lit_detect.inflection": "lit_detect.language.inflection",
    "lit_detect.journal": "lit_core.work",
    "lit_detect.leak": "lit_detect.generation.leak",
    "lit_detect.masked": "lit_detect.scoring.masked_language_model",
    "lit_detect.masked_scoring": "lit_detect.scoring.masked",
    "lit_detect.ngram": "lit_detect.generation.ngram_model",
    "lit_detect.normalize": "lit_detect.language.normalize",
    "lit_detect.parts_of_speech": "lit_detect.language.parts_of_speech",
    "lit_detect.passages": "lit_detect.generation.passages",
    "lit_detect.prepare": "lit_detect.data.prepare",
    "lit_detect.report_cells": "lit_detect.report.evaluate",
    "lit_detect.report_pages": "lit_detect.report.pages",
    "lit_detect.report_quality": "lit_detect.report.quality",
    "lit_detect.score_many": "lit_detect.loading",
    "lit_detect.similarity": "lit_detect.language.similarity",
    "lit_detect.text_file": "lit_detect.data.user_texts",
    "lit_detect.texts": "lit_detect.data.text_shards",
    "lit_detect.wordnet": "lit_detect.language.wordnet",
    "lit_detect.words": "lit_detect.language.word_vectors",
    "lit_moe.callbacks.replay_mixing": "lit_core.callbacks.replay_mixing",
    "lit_moe.drift": "lit_moe.functional.drift",
    "lit_moe.experiment": "lit_moe.study",
    "lit_moe.generate": "lit_moe.commands.generate",
    "lit_moe.interop.pieces": "lit_moe.interop.tensor_map",
    "lit_moe.layer_drift": "lit_moe.callbacks.layer_drift",
    "lit_moe.load": "lit_moe.callbacks.router_load",
    "lit_moe.loss": "lit_moe.functional.token_nll",
    "lit_moe.memory": "lit_moe.plan.memory",
    "lit_moe.nn.rows": "lit_moe.nn.dispatch",
    "lit_moe.plan_cli": "lit_moe.commands.plan",
    "lit_moe.reference": "lit_moe.callbacks.reference",
    "lit_moe.strategy": "lit_moe.parallel.strategy",
    "lit_moe.upcycle": "lit_moe.interop.upcycle",
    "lit_valuation.coreset": "lit_valuation.callbacks.coreset",
    "lit_valuation.exchange.cheap": "lit_valuation.exchange.proxy_scores",
    "lit_valuation.exchange.query": "lit_valuation.commands.query",
    "lit_valuation.exchange.rank": "lit_valuation.commands.rank",
    "lit_valuation.exchange.select": "lit_valuation.commands.select",
    "lit_valuation.hard": "lit_valuation.data.hard_cases",
    "lit_valuation.labelled": "lit_valuation.data.labelled_sets",
    "lit_valuation.noise": "lit_valuation.data.noise",
    "lit_valuation.parties": "lit_valuation.data.division",
    "lit_valuation.planting": "lit_valuation.data.planting",
    "lit_valuation.prepare": "lit_valuation.commands.prepare",
    "lit_valuation.retrain": "lit_valuation.training.retrain",
    "lit_valuation.retrain_many": "lit_valuation.training.retrain_many",
    "lit_valuation.simulate": "lit_valuation.study.images",
    "lit_valuation.simulate_tables": "lit_valuation.study.tables",
    "lit_valuation.subset": "lit_valuation.data.weighted_subset",
    "lit_valuation.trees": "lit_valuation.training.trees",
}


def _moved(former: str, present: str, *names: str) -> dict[str, str]:
    return {f"{former}.{name}": f"{present}.{name}" for name in names}


#: Single classes and functions: of modules that exist still, or that were divided; these come before the modules.
MOVED_NAMES = {
    **_moved(
        "lit_core.fetch",
        "lit_core.fetch.packages",
        *("check_file", "fetch_deb", "fetch_npm", "fetch_wheel", "fetched_record"),
    ),
    **_moved("lit_core.lm", "lit_core.lm.language_model", "divides"),
    **_moved("lit_detect.calibrate", "lit_detect.calibration", "Calibration", "Group"),
    **_moved("lit_detect.data", "lit_detect.data.module", "PartStream"),
    **_moved(
        "lit_detect.report",
        "lit_detect.commands.report",
        *("check_coverage", "gather", "left_out", "report", "rows_of"),
    ),
    **_moved(
        "lit_detect.scoring",
        "lit_detect.scoring.causal",
        *("TokenScores", "batches_by_length", "check_scoring", "only_reading"),
        *("remembering", "score_tokens", "token_quantities"),
    ),
    **_moved("lit_detect.words", "lit_detect.language.synonyms", "Synonyms"),
    **_moved(
        "lit_moe.functional",
        "lit_moe.functional.routing",
        *("balance_bias", "balance_loss", "count_experts", "dead_experts", "jitter", "load_entropy", "log_sinkhorn"),
        *("masked_mean", "max_load", "min_load", "mri", "sinkhorn", "z_loss"),
    ),
    **_moved("lit_moe.parallel", "lit_moe.parallel.sharding", "gradient_norm", "is_sharded"),
    **_moved(
        "lit_moe.plan",
        "lit_moe.plan.costs",
        *("optimizer_memory", "parameters_by_part", "plan", "training_flops", "wire_bytes"),
    ),
    "lit_valuation.data.Joined": "lit_valuation.data.concatenated_sets.ConcatenatedSets",
    "lit_valuation.data.Part": "lit_valuation.data.concatenated_sets.GroupSubset",
    "lit_valuation.exchange.comparison.Place": "lit_valuation.exchange.comparison.OwnerRank",
    "lit_valuation.exchange.manifest.Stamp": "lit_valuation.exchange.manifest.EncoderStamp",
    "lit_valuation.exchange.rank.Home": "lit_valuation.exchange.acceptance.TrainerData",
    "lit_valuation.exchange.report.Row": "lit_valuation.exchange.report.RankingRow",
    "lit_valuation.exchange.trainings.Trained": "lit_valuation.exchange.trainings.TrainingResult",
    "lit_valuation.exchange.trainings.Trainings": "lit_valuation.exchange.trainings.TrainingRuns",
    "lit_valuation.parties.without_copies": "lit_valuation.data.division.remove_duplicates",
    "lit_valuation.retrain.Recipe": "lit_valuation.training.retrain.TrainingRecipe",
    "lit_valuation.subset.Rows": "lit_valuation.data.weighted_subset.LoaderRows",
    "lit_valuation.subset.Subset": "lit_valuation.data.weighted_subset.WeightedSubset",
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
    "valuation/quickstart.yaml": "valuation/quickstart/chosen.yaml",
}
_MOVED = MOVED_MODULES | MOVED_NAMES


def current_path(path: str) -> str:
    """Return the present import path of what a former one named; any other string as it is.

    Args:
        path: A dotted import path of a module, a class, a function or a method.
    """
    parts = path.split(".")
    for length in range(len(parts), 1, -1):
        present = _MOVED.get(".".join(parts[:length]))
        if present is not None:
            return ".".join([present, *parts[length:]])
    return path


def current_paths(plain: Any) -> Any:
    """Return plain values with all former import paths among them replaced.

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
