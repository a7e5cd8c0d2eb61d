"""References in configs, such as ``${trainer.max_steps}``: they are kept as typed and resolved where they are used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_ABSOLUTE = re.compile(r"\$\{([A-Za-z_][\w.\[\]]*)\}")
_ENVIRONMENT = re.compile(r"\$\{oc\.env:")
_NESTED_ENVIRONMENT = re.compile(r"\$\{(?:(?!\$\{)[^}])*\$\{oc\.env:")


def has_reference(value: Any) -> bool:
    """Tell whether a value is a text with a reference."""
    return isinstance(value, str) and "${" in value


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with their references replaced by what they refer to.

    Args:
        config: Plain values; a reference without leading dots is a path from their top.

    Raises:
        omegaconf.errors.OmegaConfBaseException: If there is nothing under the name of a reference.
    """
    if not any(has_reference(value) for value in _leaves(config)):
        return dict(config)
    from omegaconf import OmegaConf

    return dict(OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True))  # type: ignore[arg-type]


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value under a path such as ``data.init_args.root``, resolved, and no other; None if there is none."""
    from omegaconf import OmegaConf

    value = OmegaConf.select(OmegaConf.create(dict(config)), key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def below(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return plain values under one key, to which their references are adjusted.

    Example:
        >>> below({"trainer": {"max_steps": 3}, "total_steps": "${trainer.max_steps}"}, "fit")
        {'fit': {'trainer': {'max_steps': 3}, 'total_steps': '${fit.trainer.max_steps}'}}
    """
    return {key: _mapped(config, lambda text: _ABSOLUTE.sub(rf"${{{key}.\1}}", text))}


def as_typed(config: Any, typed: Any) -> Any:
    """Return a resolved config in which each value that was typed with a reference is as it was typed.

    Args:
        config: The resolved config, as plain values.
        typed: The same config with its references; what it has besides is left out.

    Example:
        >>> as_typed({"a": 3, "b": [3, 4]}, {"a": 3, "b": ["${a}", 4]})
        {'a': 3, 'b': ['${a}', 4]}
    """
    if has_reference(typed):
        return typed
    if isinstance(config, dict) and isinstance(typed, dict):
        return {key: as_typed(value, typed.get(key)) for key, value in config.items()}
    if isinstance(config, list) and isinstance(typed, list) and len(config) == len(typed):
        return [as_typed(value, other) for value, other in zip(config, typed, strict=True)]
    return config


def without_secrets(config: Any, typed: Mapping[str, Any]) -> Any:
    """Return a resolved config in which values that come from environment variables are references to these.

    Args:
        config: The resolved config, as plain values.
        typed: The same config with its references.
    """
    return as_typed(config, without_environment(typed))


def without_environment(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with its references resolved, except those to environment variables, which stay as typed."""
    return resolved(_mapped(config, _escaped_environment))


def settled(config: Mapping[str, Any], root: str) -> dict[str, Any]:
    """Return a config in which references to what lies below one of its keys are replaced by the values there.

    Example:
        >>> settled({"trainer": {"max_steps": 3}, "model": {"a": "${trainer.max_steps}", "b": "${data.c}"}}, "trainer")
        {'trainer': {'max_steps': 3}, 'model': {'a': 3, 'b': '${data.c}'}}
    """

    def settle(text: str) -> Any:
        whole = _ABSOLUTE.fullmatch(text)
        if whole and whole[1].startswith(f"{root}."):
            value = _found(config, whole[1])
            return settle(value) if has_reference(value) else value
        return _ABSOLUTE.sub(lambda match: str(settle(match[0])) if match[1].startswith(f"{root}.") else match[0], text)

    return dict(_mapped(config, settle))


def _found(config: Any, path: str) -> Any:
    for key in path.replace("]", "").replace("[", ".").split("."):
        config = config[int(key)] if isinstance(config, list) else config[key]
    return config


def _escaped_environment(text: str) -> str:
    if _NESTED_ENVIRONMENT.search(text):
        return text.replace("${", r"\${")
    return _ENVIRONMENT.sub(r"\\${oc.env:", text)


def _mapped(node: Any, change: Callable[[str], Any]) -> Any:
    """Return plain values in which each text with a reference is changed."""
    if isinstance(node, Mapping):
        return {key: _mapped(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_mapped(value, change) for value in node]
    return change(node) if has_reference(node) else node


def _leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping | list):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _leaves(value)
    else:
        yield node
