"""Loading of models by transformers, without its progress bars and reports, and with errors in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean, reason_of
from lit_core.fetch.hub_access import asking_hub, hub_reason
from lit_core.lm.model_files import check_complete, check_model_folder
from lit_core.screen import rank_zero_warn
from lit_core.size_limit import sized_by_itself


@contextmanager
def loading(subject: str, remedy: str, model: str | Path) -> Iterator[None]:
    """Hide the output of transformers while it loads a model, and raise its errors as UserError.

    Args:
        subject: Start of the error message: the argument and its value, such as ``encoder is minilm``.
        remedy: End of the error message: what to give instead.
        model: Name or folder of the model; a folder is checked by `check_model_folder` first.

    Raises:
        UserError: If transformers does not find the model, does not know its type, or cannot read it.
    """
    try:
        if Path(model).is_dir():
            check_complete(Path(model), subject, remedy)
            check_model_folder(Path(model))
        with asking_hub(), quiet_transformers(), sized_by_itself():
            check_type(_values(model), subject, remedy)
            yield
    except UserError:
        raise
    except Exception as error:  # each config and each model of transformers has its own
        raise UserError(f"{subject}, which cannot be loaded ({hub_reason(error)}); {remedy}.") from error


def check_type(config: Mapping[str, Any] | None, subject: str, remedy: str) -> None:
    """Refuse a config whose type transformers does not know by itself; code beside a model is never run.

    Args:
        config: Content of a config.json; None where it is not known.
        subject: Start of the message: the argument and its value.
        remedy: End of the message: what to give instead.

    Raises:
        UserError: If it names no type, or one that is not known.
    """
    from transformers import CONFIG_MAPPING, __version__

    kind = None if config is None else config.get("model_type")
    if config is None or kind in CONFIG_MAPPING:
        return
    if "auto_map" in config:
        raise UserError(
            f"{subject}, whose model_type {kind} has code of its own, which is never run here; give a model that "
            "transformers knows by itself."
        )
    if kind is None:
        raise UserError(f"{subject}, whose config.json names no model_type; {remedy}.")
    hint = did_you_mean(str(kind), CONFIG_MAPPING.keys())
    raise UserError(
        f"{subject}, whose model_type is {kind}, which transformers {__version__} does not know; install a version "
        f"that does, or {remedy}.{hint}"
    )


def _values(model: str | Path) -> dict[str, Any] | None:
    """Return the content of a model's config.json; None if it cannot be read, which loading it will tell."""
    from transformers import PretrainedConfig

    try:
        values, _ = PretrainedConfig.get_config_dict(str(model))
    except (OSError, ValueError):
        return None
    return dict(values)


def load_whole(kind: Any, name: str, partly: bool = False, **options: Any) -> Any:
    """Return a model all of whose weights were read; those that a folder lacks would be random numbers.

    Args:
        kind: A class of transformers with ``from_pretrained``, of models that are whole, with their output layers.
        name: Name or folder of the model.
        partly: Whether weights are left out on purpose, and not told.
        options: Further arguments of ``from_pretrained``.

    Raises:
        ValueError: If weights are missing, are NaN, or have other shapes than the config describes; call it within
            `loading`.
    """
    from transformers import AutoConfig

    config = options.pop("config", None) or AutoConfig.from_pretrained(name, trust_remote_code=False)
    check_class(kind, config)
    try:
        model, found = kind.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # said below with the name and the shapes
            config=config,
            **options,
        )
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:  # as if a key of the config were missing
        raise ValueError(
            f"its config.json has the model_type {config.model_type}, of which no model can be made of its other keys: "
            f"{reason_of(error, 80)}"
        ) from error
    others = sorted(found["mismatched_keys"])
    if others:
        key, theirs, ours = others[0]
        raise ValueError(f"its config describes {key} as {tuple(ours)}, but its weights hold {tuple(theirs)}")
    missing, unused = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if missing:
        raise ValueError(
            f"its weights lack {len(missing)} tensors of its config.json, such as {missing[0]}, which would be random"
            f"{f'; they hold {unused[0]}' if unused else ''}"
        )
    if not partly:
        name_unused(model, name, unused)
    spoiled = next((key for key, weight in model.named_parameters() if bool(weight.isnan().any())), None)
    if spoiled is not None:
        raise ValueError(f"its {spoiled} holds NaN, with which nothing can be computed; its files may be damaged")
    return model


def check_class(kind: Any, config: Any) -> None:
    """Check that transformers has a model of a class for a config.

    Args:
        kind: A class of transformers with ``from_pretrained``, such as ``AutoModelForCausalLM``.
        config: The model's config.

    Raises:
        ValueError: If it has none; call it within `loading`.
    """
    if type(config) not in kind._model_mapping:
        raise ValueError(
            f"transformers has no {kind.__name__.removeprefix('AutoModelFor')} of the type {config.model_type}"
        )


def name_unused(model: Any, name: str, unused: list[str]) -> None:
    """Warn of weights in a model's files for which the model has no place.

    Args:
        model: The model.
        name: Name or folder of the model.
        unused: Names of the weights; nothing is said of none.
    """
    if unused:
        rank_zero_warn(
            f"The weights of {name} hold {len(unused)} tensors for which the {type(model).__name__} that its config "
            f"describes has no place, such as {unused[0]}; they are left out."
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide progress bars and lists of missing or unused weights while transformers loads a model."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
