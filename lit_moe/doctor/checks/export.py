"""What is exported is loaded by transformers, with equal logits."""

from __future__ import annotations

import contextlib
import io

import torch

from lit_core.callbacks import RunCheckpoint
from lit_core.files.temporary import scratch
from lit_core.lm.language_model import evaluating
from lit_moe.doctor.check import Finding
from lit_moe.doctor.specimen import Specimen
from lit_moe.doctor.training import SpecimenData, small_trainer
from lit_moe.interop.exporting import export_model
from lit_moe.nn import HFDecoder


def check(specimen: Specimen) -> Finding:
    """Compare the logits of a module after a step with those of what transformers loads from its exported checkpoint.

    Args:
        specimen: The small model.
    """
    from transformers import AutoModelForCausalLM

    module, tokens = specimen.module(), specimen.tokens(2, 24)
    with scratch("doctor") as home:
        small_trainer(home, 1, RunCheckpoint(dirpath=str(home))).fit(module, datamodule=SpecimenData(specimen))
        with contextlib.redirect_stdout(io.StringIO()):
            export_model(str(home / "last.ckpt"), str(home / "exported"))
        theirs, report = AutoModelForCausalLM.from_pretrained(
            home / "exported",
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    wrong = [f"{len(names)} {kind.replace('_', ' ')}" for kind, names in report.items() if names]
    if wrong:
        return Finding("fail", f"transformers reports {', '.join(wrong)} when it loads what was exported.")
    for tensor in (*theirs.parameters(), *theirs.buffers()):
        tensor.data = tensor.data.clone()  # in files they are not aligned, which changes the rounding of sums
    with evaluating(module), torch.no_grad():
        assert isinstance(module.decoder, HFDecoder)
        expected = module.decoder.call(input_ids=tokens, use_cache=False).logits
        actual = theirs.eval()(input_ids=tokens, use_cache=False).logits
    if not torch.equal(actual, expected):
        most = float((actual - expected).abs().max())
        return Finding("fail", f"The logits of the exported model differ by up to {most:.3g}.")
    return Finding("pass")
