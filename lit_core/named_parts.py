"""Configs in which the classes of a list stand by their names, so that those of two runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def named_parts(config: Any) -> Any:
    """Return a config in which each list of classes is a mapping of their arguments by short name.

    Of several classes of one name, the further ones are numbered.

    Args:
        config: A config as plain values, or a part of one.

    Example:
        >>> named_parts({"callbacks": [{"class_path": "lit_moe.ReplayMixing", "init_args": {"fraction": 0.3}}]})
        {'callbacks': {'ReplayMixing': {'fraction': 0.3}}}
    """
    if isinstance(config, Mapping):
        return {key: named_parts(value) for key, value in config.items()}
    if not isinstance(config, list) or not all(isinstance(item, Mapping) and "class_path" in item for item in config):
        return config
    named: dict[str, Any] = {}
    for item in config:
        name = str(item["class_path"]).rpartition(".")[2]
        number = 1 + sum(known.partition("-")[0] == name for known in named)
        named[name if number == 1 else f"{name}-{number}"] = named_parts(item.get("init_args") or {})
    return named
