"""The verb ``lit-moe doctor``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from lit_core.errors import FAILED, OK, UserError, checked_first, did_you_mean
from lit_core.files.paths import atomic_write
from lit_core.record import inputs, output_with_record, read_so_far, write_record
from lit_core.screen import progress_bar, say
from lit_core.seeds import part_seed
from lit_moe.doctor.check import Check, Finding, purposes
from lit_moe.doctor.check import checks as all_checks
from lit_moe.doctor.examine import examine
from lit_moe.doctor.families import mixture_families, small_config, unbuilt
from lit_moe.doctor.source import small_model
from lit_moe.doctor.table import as_markdown, as_plain
from lit_moe.interop.folder import need_transformers

_HEAD = """`lit-moe doctor` on small random copies of models, of seed {seed}, with transformers {version}.
pass: equal to an independent reference. fail: different, or an error. refused: our code says in a sentence that it
cannot be done, before anything wrong is computed. n/a: the model has no such part."""
#: What stands for all types of the installed transformers in place of a model.
_ALL = "all"


def _check(seed: int | None, output: str | None) -> None:
    part_seed(seed)
    if output is not None and Path(output).suffix not in (".md", ".json"):
        raise UserError(f"output is {output}, but must end in .md for a page or in .json; change it.")


@checked_first(_check)
def doctor(
    models: list[str],
    checks: list[str] | None = None,
    seed: int | None = None,
    output: str | None = None,
) -> int:
    """Prove on small random copies what training mixtures of transformers relies on.

    Each check compares what this package does with a reference of its own. A line says whether it passes, fails, is
    refused by us before anything wrong is computed, or does not apply, and why. Weights of the models are not read.

    Args:
        models: Names of Hugging Face models, folders, files config.json or model types of transformers; the flag may be
            left out, as in ``lit-moe doctor gpt_oss``. All, as ``lit-moe doctor all``, takes each type of the installed
            transformers that holds a mixture, and half an hour.
        checks: Names of some checks as a list, such as [gates, flops]; null takes all.
        seed: Seed of the weights and tokens, 0 or more; null takes 0.
        output: File to be written with the table, .md or .json; null prints only.

    Returns:
        The exit code: 0, or 1 if a check fails.

    Raises:
        UserError: If a model is unknown, has no mixture of experts or is incomplete, or the output exists.
    """
    target = None if output is None else output_with_record(output)
    _check(seed, output)
    need_transformers("doctor")
    chosen = _chosen(checks)
    walks = models == [_ALL]
    names = mixture_families() if walks else models
    configs = {name: small_config(name) if walks else small_model(name) for name in names}
    described = read_so_far()  # the checks also read what they have written themselves
    findings: dict[str, dict[str, Finding]] = {}
    bar = progress_bar(total=len(configs) * len(chosen), desc="doctor", with_rate=False)
    with bar:
        for model, config in configs.items():
            for name, finding in examine(config, chosen, seed):
                findings.setdefault(model, {})[name] = finding
                bar.update()
                say(_line(model if len(configs) > 1 else "", name, finding))
    without = unbuilt() if walks else {}
    for model, reason in without.items():
        say(f"{model}: no small copy can be built: {reason}")
    if target is not None:
        write_record(target, inputs=inputs(among=described))
        atomic_write(target, _text(target, findings, without, seed or 0))
        say(f"Wrote {target}")
    every = [(f"{name} of {model}", one) for model, row in findings.items() for name, one in row.items()]
    failed = [name for name, one in every if one.verdict == "fail"]
    if not failed:
        return OK
    first = ", ".join(failed[:10]) + ", …" * (len(failed) > 10)
    say(f"{len(failed)} of {len(every)} checks failed: {first}.", error=True)
    return FAILED


def _chosen(names: list[str] | None) -> dict[str, Check]:
    known = all_checks()
    if names == []:
        raise UserError(f"checks is empty; name some of {', '.join(known)}, or leave it out to take all.")
    for name in names or []:
        if name not in known:
            raise UserError(f"checks has {name}, but must be of {', '.join(known)}.{did_you_mean(name, known)}")
    return {name: check for name, check in known.items() if names is None or name in names}


def _line(model: str, name: str, finding: Finding) -> str:
    reason = f": {finding.reason}" if finding.reason else ""
    return f"{model + '  ' if model else ''}{name:<18}{finding.verdict}{reason}"


def _text(target: Path, findings: Mapping[str, Mapping[str, Finding]], without: Mapping[str, str], seed: int) -> str:
    if target.suffix == ".json":
        values = {"transformers": version("transformers"), "seed": seed, **as_plain(findings, without)}
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    lines = ["# What doctor finds", "", _HEAD.format(seed=seed, version=version("transformers")), ""]
    return "\n".join([*lines, *as_markdown(findings, purposes(), without)]) + "\n"
