"""One model that is pre-trained on old text and goes on with new: what a study of continual pre-training varies.

After the experiments of Thérien et al. 2025, Continual Pre-training of MoEs, arXiv 2503.05029.
"""

from __future__ import annotations

import hashlib
import statistics
from typing import Literal

from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_moe.callbacks import Forgetting
from lit_moe.study.arguments import Plain, Recipe, Texts, chosen, made, prepare_once
from lit_moe.study.rows import (
    Metrics,
    Row,
    band_rows,
    curve_rows,
    layer_rows,
    losses,
    share_per_expert,
    shift_facts,
    step_rows,
    text_rows,
)
from lit_moe.study.runs import TRACED, Moment, Runs
from lit_moe.study.shift import Trace

Schedule = Literal["infinite", "cosine", "union"]
#: Where a run goes on from: the end of the constant phase, or the end of the annealing.
STARTS: dict[str, Moment] = {"infinite": "constant", "cosine": "annealed"}


def experiment(
    seed: int,
    model: str,
    schedule: Schedule,
    replay: float,
    shift: str,
    models: dict[str, Plain],
    shifts: dict[str, list[str]],
    old: list[str],
    corpora: list[Plain],
    vocab_size: int,
    decoder: Plain,
    recipe: Plain,
    pretrain_steps: int,
    steps: int,
    window: int = 20,
    test_samples: int = 256,
    max_bytes: int | None = None,
) -> list[Row]:
    """Pre-train a model on old text, go on with new text, and measure what it forgot and how its routers took it.

    Args:
        seed: Seed of the weights and of the order of the texts.
        model: Name of the model.
        schedule: ``infinite`` goes on flat from the constant phase and anneals at the end, ``cosine`` re-warms the
            annealed model, ``union`` trains anew on old and new text together, with as many tokens of each as that.
        replay: Replayed fraction of the old text.
        shift: Name of the shift.
        models: Of each model ``feed_forward``, and class and arguments of its ``router``, by name.
        shifts: Sources of the new text of each shift, by name.
        old: Sources of the old text.
        corpora: Class and arguments of all corpora; those that are neither old nor new are foreign to the model.
        vocab_size: Tokens of the tokenizer that is trained on all of them.
        decoder: Arguments of `DecoderConfig` that all models share.
        recipe: Arguments of `Recipe`.
        pretrain_steps: Optimizer steps of pre-training, with its annealing.
        steps: Optimizer steps with the new text.
        window: Steps before and behind the shift that are compared.
        test_samples: Sequences per source of each test.
        max_bytes: Most bytes of text of each corpus; None takes all.

    Returns:
        Rows told apart by ``what``: ``run``; ``text``, by moment and text; ``layer`` and ``band`` (layers of 24), by
        text; ``step``, around the shift; ``curve``, of the losses by the tokens trained on.
    """
    spec, new = chosen(model, models, "model"), chosen(shift, shifts, "shift")
    chosen(schedule, dict.fromkeys((*STARTS, "union")), "schedule")
    root, names = prepare_once(corpora, vocab_size, max_bytes)
    for name in (*old, *new):
        chosen(name, dict.fromkeys(names), "a source")
    texts = Texts(root, names, tuple(old), tuple(new), test_samples)
    runs = Runs(seed, spec, decoder, made(Recipe, recipe, "recipe"), texts)
    whole: Row = {"what": "run"}
    rows: list[Row] = []
    if schedule == "union":
        module = runs.retrained(pretrain_steps + steps, (1 - replay) * steps / (pretrain_steps + steps))
        spent, earlier_spent = module.train_flops / 1e12, 0.0  # before a test, whose trainer counts no steps
        before: Metrics = {}
        after = runs.tested(module)
    else:
        trace, forgetting = Trace(TRACED), Forgetting(old, new)
        start = runs.pretrained(pretrain_steps)[STARTS[schedule]]
        before = runs.tested(runs.from_checkpoint(start), start)
        module = runs.continued(start, steps, replay, schedule == "infinite", [trace, forgetting])
        spent = module.train_flops / 1e12
        after = runs.tested(module, start)
        kept = load_checkpoint_file(start)
        earlier_spent = kept["training_meter"]["flops"] / 1e12
        earlier = kept["callbacks"][Trace.__qualname__]["steps"][-window:]
        per_expert = runs.recipe.step_tokens * share_per_expert(module)
        whole |= shift_facts(earlier, trace.steps, window, per_expert)
        rows += [*step_rows(earlier, trace.steps, per_expert), *curve_rows(forgetting)]
    layers = [*layer_rows(before, after, texts)]
    rows += [*text_rows("before", before, texts), *text_rows("after", after, texts), *layers, *band_rows(layers)]
    first = [row for row in rows if row.get("band") == "0-2" and row["text"] != "foreign" and "crs" in row]
    whole |= {"crs_early": statistics.fmean(row["crs_above_chance"] for row in first)} if first else {}
    whole |= losses(before, after, texts) | {"tflop": spent, "tflop_total": earlier_spent + spent}
    data = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(root.rglob("index.json")))).hexdigest()[:16]
    return [{"data": data} | row for row in (whole, *rows)]
