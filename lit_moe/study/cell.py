"""A cell of the continual pre-training study: one model, pre-trained on old text and trained further on new text.

After the experiments of Thérien et al. 2025, Continual Pre-training of MoEs, arXiv 2503.05029.
"""

from __future__ import annotations

import statistics

from lit_core.lightning.checkpoint import read_checkpoint_file
from lit_moe.callbacks import Forgetting
from lit_moe.study.options import ContinualOptions
from lit_moe.study.rows import (
    MeasuredRow,
    Metrics,
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
from lit_moe.study.texts import Texts, prepare_once

#: Checkpoint from which continual pre-training starts, by schedule: end of the constant phase, or of the annealing.
STARTS: dict[str, Moment] = {"infinite": "constant", "cosine": "annealed"}


def experiment(seed: int, options: ContinualOptions) -> list[MeasuredRow]:
    """Pre-train a model on old text, continue on new text, and measure forgetting and the routers' response.

    Args:
        seed: Seed of the weights and of the order of the texts.
        options: What the cell varies, and what all cells share.

    Returns:
        Rows that differ in ``what``: ``run``; ``text``, by moment and text; ``layer`` and ``band`` (layers of 24), by
        text; ``step``, around the shift; ``curve``, the losses by the tokens trained on.
    """
    old, new, replay = options.old, options.new, options.replay
    root, names = prepare_once(options.corpora, options.vocab_size, options.max_bytes)
    texts = Texts(root, names, tuple(old), tuple(new), options.test_samples)
    runs = Runs(seed, options, texts)
    whole: MeasuredRow = {"what": "run"}
    rows: list[MeasuredRow] = []
    if options.schedule == "union":
        all_steps = options.pretrain_steps + options.steps
        module = runs.retrained(all_steps, (1 - replay) * options.steps / all_steps)
        spent, earlier_spent = module.train_flops / 1e12, 0.0  # before a test, whose trainer counts no steps
        before: Metrics = {}
        after = runs.tested(module)
    else:
        trace, forgetting = Trace(TRACED), Forgetting(old, new)
        start = runs.pretrained(options.pretrain_steps)[STARTS[options.schedule]]
        before = runs.tested(runs.from_checkpoint(start), start)
        module = runs.continued(start, options.steps, replay, options.schedule == "infinite", [trace, forgetting])
        spent = module.train_flops / 1e12
        after = runs.tested(module, start)
        checkpoint = read_checkpoint_file(start)
        earlier_spent = checkpoint["training_meter"]["flops"] / 1e12
        earlier = checkpoint["callbacks"][Trace.__qualname__]["steps"][-options.window :]
        per_expert = runs.recipe.step_tokens * share_per_expert(module)
        whole |= shift_facts(earlier, trace.steps, options.window, per_expert)
        rows += [*step_rows(earlier, trace.steps, per_expert), *curve_rows(forgetting)]
    layers = [*layer_rows(before, after, texts)]
    rows += [*text_rows("before", before, texts), *text_rows("after", after, texts), *layers, *band_rows(layers)]
    first = [row for row in rows if row.get("band") == "0-2" and row["text"] != "foreign" and "crs" in row]
    whole |= {"crs_early": statistics.fmean(row["crs_above_chance"] for row in first)} if first else {}
    whole |= losses(before, after, texts) | {"tflop": spent, "tflop_total": earlier_spent + spent}
    data = texts.content_hash()
    return [{"data": data} | row for row in (whole, *rows)]
