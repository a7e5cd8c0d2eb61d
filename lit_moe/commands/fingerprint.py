"""The verb ``lit-moe fingerprint``: which experts a model chooses for a probe text, as a file."""

from __future__ import annotations

from collections.abc import Mapping

from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.paths import atomic_write
from lit_core.lightning.devices import device_named
from lit_core.lm.tokenizer import Tokenizer
from lit_core.record import output_with_record, write_record
from lit_core.screen import quoted, say
from lit_moe.fingerprint import Fingerprint, shape_text, sizes_of
from lit_moe.lm import load_module
from lit_moe.probe import check_texts, text_probe


def _check(
    output: str,
    texts: Mapping[str, str] | None,
    probe: str | None,
    tokens: int | None,
    sequence_length: int | None,
    batch_size: int | None,
) -> None:
    check_at_least(1, tokens=tokens, sequence_length=sequence_length, batch_size=batch_size)
    if not output.endswith(".npz"):
        raise UserError(f"output is {output}, but a fingerprint is known by its ending; give a name that ends in .npz.")
    given = {"texts": texts, "tokens": tokens, "sequence_length": sequence_length, "batch_size": batch_size}
    beside = next((name for name, value in given.items() if value is not None), None)
    if probe is not None and beside is not None:
        raise UserError(
            f"{beside} is given beside probe, whose tokens are taken as they are; leave out one of the two."
        )
    check_texts(texts)


@checked_first(_check)
def fingerprint(
    ckpt_path: str,
    output: str,
    texts: dict[str, str] | None = None,
    probe: str | None = None,
    tokens: int | None = None,
    sequence_length: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Store which experts a model chooses for a probe text, with which later models are compared.

    Args:
        ckpt_path: Checkpoint of ``lit-moe fit``, or of ``import`` or ``upcycle``, of a model with mixture layers.
        output: File to be written, a .npz.
        texts: Text file of each domain by its name; null takes the beginnings of six novels that are embedded.
        probe: Another fingerprint, whose tokens are taken, so that both can be compared; null takes those of texts.
        tokens: Most tokens of a domain, 1 or more; null takes 2048.
        sequence_length: Tokens of a sequence, 1 or more, at most what the model takes; null takes 256, or that if less.
        batch_size: Sequences of a forward pass, 1 or more; null takes 8. It is stored, since it may change rounding.
        device: Device to run on, such as cpu or cuda:0; auto takes the first GPU if there is one.

    Raises:
        UserError: If an argument is out of its range, a file is missing, or the output exists.
    """
    target = output_with_record(output)
    _check(output, texts, probe, tokens, sequence_length, batch_size)
    taken = None if probe is None else Fingerprint.load(probe, "probe").probe
    module, checkpoint = load_module(ckpt_path, device_named(device))
    if not (sizes := sizes_of(module)):
        raise UserError(f"ckpt_path is {ckpt_path}, whose model has no mixture layers; give one that has some.")
    if "tokenizer" not in checkpoint:
        raise UserError(f"ckpt_path is {ckpt_path}, which holds no tokenizer; give a checkpoint of lit-moe fit.")
    stored = checkpoint["tokenizer"]
    tokenizer = Tokenizer.from_json(stored["json"], stored.get("start", ()))
    if taken is None:
        taken = text_probe(module, tokenizer, texts, tokens, sequence_length, batch_size)
    elif taken.tokenizer != tokenizer.sha256:
        raise UserError(
            f"probe is {probe}, whose tokens are of the tokenizer {taken.tokenizer[:12]}, but ckpt_path has "
            f"{tokenizer.sha256[:12]}; models of two tokenizers cannot be compared."
        )
    found = Fingerprint.of(module.eval(), taken)
    write_record(target)  # first, since a command that is given again after a kill refuses an output that exists
    atomic_write(target, found.content())
    domains = f"{len(taken.domains)} domain{'s' if len(taken.domains) > 1 else ''}"
    say(
        f"Wrote {target}: {shape_text(sizes)}, {int(taken.counted.sum()):,} tokens of {domains}",
        "",
        f"Compare it  lit-moe drift --before {quoted(target)} --after OTHER.npz",
        "Watch it    lit-moe fit … --trainer.callbacks+=lit_moe.RouterDrift "
        f"--trainer.callbacks.reference {quoted(target)}",
    )
