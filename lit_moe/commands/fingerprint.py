"""The verb ``lit-moe fingerprint``: which experts a model chooses for a probe text, as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_core.corpora import Austen
from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.paths import atomic_write
from lit_core.files.text_files import read_text
from lit_core.lightning.devices import device_named
from lit_core.lm.tokenizer import Tokenizer
from lit_core.record import output_with_record, write_record
from lit_core.screen import say
from lit_moe.fingerprint import Fingerprint, probe_of, shape_text, sizes_of
from lit_moe.lm import language_model, load_module

#: Tokens of a domain and of a sequence, and sequences of a forward pass, where none are given.
_TOKENS, _LENGTH, _BATCH = 2048, 256, 8


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
    if texts is not None and not texts:
        raise UserError("texts is empty, but routing is compared on a text; name one, or leave it out.")
    for name, path in (texts or {}).items():
        if not os.path.isfile(path):
            raise UserError(f"texts has {path} for {name}, but there is no such file; correct the path.")


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
        length = _length(sequence_length, language_model(module.decoder, tokenizer).max_length)
        documents = _documents(texts, tokenizer, tokens or _TOKENS)
        taken = probe_of(documents, length, tokens or _TOKENS, tokenizer.sha256, batch_size or _BATCH)
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
        f"Compare it  lit-moe drift --before {target} --after OTHER.npz",
        f"Watch it    lit-moe fit … --trainer.callbacks+=lit_moe.RouterDrift --trainer.callbacks.reference {target}",
    )


def _length(given: int | None, longest: int | None) -> int:
    if given is not None and longest is not None and given > longest:
        raise UserError(f"sequence_length is {given}, but the model takes at most {longest}; give that or less.")
    return given or min(_LENGTH, longest or _LENGTH)


def _documents(texts: Mapping[str, str] | None, tokenizer: Tokenizer, tokens: int) -> dict[str, Sequence[list[int]]]:
    """Return token ids of documents by domain, each as a run trains on it: with what begins and ends it."""
    if texts is not None:
        read = {name: [read_text(Path(path))] for name, path in texts.items()}
    else:
        read = {}
        for chapter in Austen().documents():
            known = read.setdefault(chapter.group, [])
            if sum(map(len, known)) <= 16 * tokens:  # more characters than tokens
                known.append(chapter.text)
    return {
        name: [[*tokenizer.start, *tokenizer.encode(text), tokenizer.end_of_text] for text in each]
        for name, each in read.items()
    }
