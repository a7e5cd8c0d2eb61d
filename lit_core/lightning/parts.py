"""Parts of a network that are frozen, or that learn more slowly, named by patterns of their parameters' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lit_core.errors import UserError, check_above
from lit_core.screen import rank_zero_info


def matching(module: nn.Module, pattern: str, argument: str) -> list[str]:
    """Return the names of the parameters that a pattern names, in order.

    Args:
        module: The network.
        pattern: Dotted parts that follow each other anywhere in a parameter's name, such as ``gate`` or
            ``layers.0.*.weight``; ``*`` stands for anything, also for several parts.
        argument: Name of the argument that holds the pattern, for the message.

    Raises:
        UserError: If it is empty or names none.
    """
    if not pattern.strip():
        raise UserError(f"`{argument}` has an empty pattern; remove it, or write * for all parameters.")
    names = [name for name, _ in module.named_parameters()]
    found = [name for name in names if fnmatchcase(f".{name}.", f"*.{pattern}.*")]
    if not found:
        raise UserError(
            f"`{argument}` has {pattern}, but no parameter has such parts in its name; take parts of names such as "
            f"{names[len(names) // 2]}."
        )
    return found


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters that some pattern names, so that they get no gradient, no decay and no moments; in place.

    Args:
        module: The network.
        patterns: Patterns as in `matching`.

    Raises:
        UserError: If a pattern names no parameter, or none that is trained, or nothing is left to train.
    """
    frozen = {name for pattern in patterns for name in _trained(module, pattern, "freeze")}
    parameters = dict(module.named_parameters())
    for name in frozen:
        parameters[name].requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"`freeze` is {', '.join(patterns)}, which leaves no parameter to train; name fewer.")


def _trained(module: nn.Module, pattern: str, argument: str) -> list[str]:
    """Return what `matching` returns, if one of the parameters is trained."""
    names = matching(module, pattern, argument)
    if not any(module.get_parameter(name).requires_grad for name in names):
        raise UserError(f"`{argument}` has {pattern}, which names only parameters that are not trained; leave it out.")
    return names


def check_factors(factors: Mapping[str, float]) -> None:
    """Raise an error if a factor of the learning rate is not above 0; needs no network.

    Args:
        factors: Factors by pattern as in `matching`.

    Raises:
        UserError: If one is not above 0.
    """
    for pattern, factor in factors.items():
        check_above(0, **{f"lr_factors.{pattern}": factor})


def learning_rate_factors(module: nn.Module, factors: Mapping[str, float]) -> dict[str, float]:
    """Return the factor of each slowed or hastened parameter by name; the last pattern that names it counts.

    Args:
        module: The network.
        factors: Factors of the learning rate above 0, by pattern as in `matching`.

    Raises:
        UserError: If a pattern names no parameter, or none that is trained, or a factor is not above 0.
    """
    check_factors(factors)
    by_name: dict[str, float] = {}
    for pattern, factor in factors.items():
        by_name |= dict.fromkeys(_trained(module, pattern, "lr_factors"), float(factor))
    return by_name


def scale_steps(optimizer: Optimizer, factors: Sequence[float]) -> None:
    """Multiply the learning rates of an optimizer's groups while it steps, and at no other time.

    A schedule sets the rates as without factors, so their ratio is the same at each step, whatever the schedule. A
    checkpoint holds the rates of the schedule.

    Args:
        optimizer: The optimizer.
        factors: Factor of each group.
    """
    kept: list[Any] = []

    def scale(stepping: Any, *_: Any) -> None:
        kept[:] = [group["lr"] for group in stepping.param_groups]
        for group, factor in zip(stepping.param_groups, factors, strict=False):
            group["lr"] = group["lr"] * factor

    def restore(stepping: Any, *_: Any) -> None:
        for group, rate in zip(stepping.param_groups, kept, strict=True):
            group["lr"] = rate

    optimizer.register_step_pre_hook(scale)
    optimizer.register_step_post_hook(restore)


def say_parts(module: nn.Module, factor_of: Mapping[str, float], say: Callable[[str], None] = rank_zero_info) -> None:
    """Say how many parameters are frozen, and how many have a learning rate of their own; nothing if none.

    Args:
        module: The network.
        factor_of: Result of `learning_rate_factors`.
        say: Takes the sentence.
    """
    parameters = dict(module.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    frozen = sum(parameter.numel() for parameter in parameters.values() if not parameter.requires_grad)
    said = [f"{frozen:,} are frozen"] if frozen else []
    for factor in sorted(set(factor_of.values())):
        trained = (parameters[name] for name, own in factor_of.items() if own == factor)
        number = sum(parameter.numel() for parameter in trained if parameter.requires_grad)
        said.append(f"{number:,} learn at {factor:g} times the rate")
    if said:
        say(f"Of {total:,} parameters, {' and '.join(said)}.")
