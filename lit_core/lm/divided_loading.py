"""A pretrained model of transformers that is divided over devices: each reads its own part of the safetensors files.

transformers reads, renames, merges and transposes the tensors of its files by the rules of each model. It reads no more
of a file than the part of a divided parameter needs.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_core.errors import UserError, reason_of
from lit_core.files.paths import resolve_data_path
from lit_core.lightning.later_weights import parameters_on_meta
from lit_core.lightning.sharded_checkpoint import region_of
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.model_files import open_weights, weight_files
from lit_core.lm.quantized import is_quantized, model_folder
from lit_core.lm.tokenizer import Tokenizer
from lit_core.lm.transformers_loading import check_class, loading, name_unused

#: The first version whose loader was tried with parameters that are divided; earlier ones read tensors whole.
_NEEDED = RequirementCache("transformers>=5.23")
_REMEDY = "give a Hugging Face name or a folder with safetensors"


def without_weights(name: str) -> HuggingFaceLM | None:
    """Return a model whose parameters are on the meta device, to be read by `read_parts`.

    Args:
        name: Name of a Hugging Face model, or a folder, which may be below the data root.

    Returns:
        The model in float32; None if it can only be read whole: its weights are quantised, or the version of
        transformers is an earlier one.

    Raises:
        UserError: If there is no such model, or transformers cannot build it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    name = _found(name)
    with loading(f"The language model is {name}", _REMEDY, name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        check_class(AutoModelForCausalLM, config)
        if not _NEEDED or is_quantized(config):
            return None
        with parameters_on_meta():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return HuggingFaceLM(model.eval(), Tokenizer.load(name), name.rstrip("/").split("/")[-1])


def read_parts(model: Any, name: str, device: torch.device) -> None:
    """Read the weights of a model that has none, in place; of a divided parameter, only this device's part.

    All devices call it, and if one finds a mistake, all of them raise it.

    Args:
        model: The model, whose parameters are on the meta device, divided over devices or not.
        name: Name or folder of the model.
        device: This process's device.

    Raises:
        UserError: If a file or a weight is missing, has another shape than the config describes, or is NaN.
    """
    name = _found(name)
    buffers = dict(model.named_buffers(remove_duplicate=False))
    shared = _shared(model)
    problem, unused = "", []
    with loading(f"The language model is {name}", _REMEDY, name):
        try:
            unused = _read(model, model_folder(name), device)
            problem = _problem(model, shared)
        except Exception as error:  # whatever a file or a model makes transformers raise
            problem = str(error) if isinstance(error, UserError | ValueError) else reason_of(error)
        if problem := _first_of_all(problem):
            raise ValueError(problem)
    _keep_buffers(model, buffers)
    name_unused(model, name, unused)


def _found(name: str) -> str:
    folder = resolve_data_path(name)
    return str(folder) if folder.is_dir() else name


def _read(model: Any, folder: Path, device: torch.device) -> list[str]:
    """Let transformers read the files into the model; return the names of tensors for which it has no place."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    opened = [open_weights(folder / file) for file in sorted(set((weight_files(folder) or {}).values()))]
    slices = {key: weights.get_slice(key) for weights in opened for key in weights.keys()}
    rules = get_model_conversion_mapping(model)
    settings = LoadStateDictConfig(
        pretrained_model_name_or_path=str(folder),
        ignore_mismatched_sizes=True,  # said below with the name and the shapes
        device_map={"": device},
        dtype=torch.float32,
        weight_mapping=rules,
    )
    missing: set[str] = set(model.state_dict())
    unused: set[str] = set()
    for layer, keys in _groups(model, slices, get_model_conversion_mapping(model)).items():
        divided = _undivided(model, layer) if layer else {}
        found, _ = convert_and_load_state_dict_in_model(
            model=model, state_dict={key: slices[key] for key in keys}, load_config=settings, disk_offload_index=None
        )
        if found.conversion_errors:
            key, error = min(found.conversion_errors.items())
            raise ValueError(f"its {key} cannot be made of its tensors: {' '.join(str(error).split())[-200:]}")
        if found.mismatched_keys:
            key, theirs, ours = min(found.mismatched_keys)
            raise ValueError(_mismatch(key, tuple(ours), tuple(theirs)))
        missing, unused = missing & found.missing_keys, unused | found.unexpected_keys
        _divide_again(model, divided, device)
    model._weight_conversions = [rule for rule in rules if rule.was_used()]
    found.missing_keys, found.unexpected_keys = missing, unused
    model.tie_weights(missing_keys=found.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(found)
    if found.missing_keys:
        names, others = sorted(found.missing_keys), sorted(found.unexpected_keys)
        raise ValueError(
            f"its weights lack {len(names)} tensors of its config.json, such as {names[0]}, which would be random"
            f"{f'; they hold {others[0]}' if others else ''}"
        )
    return sorted(found.unexpected_keys)


def _groups(model: Any, slices: dict[str, Any], rules: list[Any]) -> dict[str, list[str]]:
    """Return the tensors of the files that are read together: those whose parts suffice, and by layer all others.

    Of a tensor that is only renamed, a device needs its part; of those that are stacked to the experts of a layer, its
    experts. All other rules, such as a permutation of rows, are for whole tensors, so such a layer is read whole.
    """
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    wanted = model.state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    layers, whole = {}, set()
    for key in sorted(slices, key=dot_natural_key):  # as transformers does, some of whose rules remember
        name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, wanted)
        if name not in wanted and key in wanted:
            name, pattern = rename_source_key(key, [], [], model.base_model_prefix, wanted)
        layers[key] = _layer(name)
        if pattern is not None and not _is_by_expert(by_pattern[pattern], wanted.get(name)):
            whole.add(layers[key])
        elif pattern is None and name in wanted:  # since a part of another shape may fit by chance
            ours, theirs = tuple(wanted[name].shape), tuple(slices[key].get_shape())
            if ours != theirs:
                raise ValueError(_mismatch(name, ours, theirs))
    groups: dict[str, list[str]] = defaultdict(list)
    for key, layer in layers.items():
        groups[layer if layer in whole else ""].append(key)
    return groups


def _layer(name: str) -> str:
    """Return the beginning of a parameter's name up to its first number, or else that of its module, with a dot."""
    parts = name.split(".")
    end = next((place for place, part in enumerate(parts) if part.isdigit()), max(0, len(parts) - 2))
    return ".".join(parts[: end + 1]) + "."


def _is_by_expert(rule: Any, parameter: Tensor | None) -> bool:
    """Tell whether a rule makes whole rows of a parameter from an expert's tensors, and devices hold whole rows."""
    from transformers.core_model_loading import Concatenate, MergeModulelist

    stack, *others = rule.operations
    stacks = isinstance(stack, MergeModulelist) and stack.dim == 0
    beside = not others or (len(others) == 1 and isinstance(others[0], Concatenate) and others[0].dim != 0)
    rows = not isinstance(parameter, DTensor) or all(getattr(one, "dim", 0) == 0 for one in parameter.placements)
    return stacks and beside and rows


def _undivided(model: nn.Module, layer: str) -> dict[str, DTensor]:
    """Replace the divided parameters of a layer by undivided ones on the meta device; return them by name."""
    parameters: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False))
    inside = {name: parameter for name, parameter in parameters.items() if f"{name}.".startswith(layer)}
    divided = {name: parameter for name, parameter in inside.items() if isinstance(parameter, DTensor)}
    for name, former in divided.items():
        whole = torch.empty(former.shape, dtype=former.dtype, device="meta")
        _replace(model, name, nn.Parameter(whole, requires_grad=former.requires_grad))
    return divided


def _divide_again(model: nn.Module, divided: dict[str, DTensor], device: torch.device) -> None:
    """Keep this device's parts of parameters that were read whole; those that were not read stay on the meta device."""
    for name, former in divided.items():
        part: Any = former
        whole = model.get_parameter(name)
        if not whole.is_meta:
            part = torch.empty_like(former, device=device, requires_grad=False)
            part.to_local().copy_(whole.detach()[region_of(former)])
        _replace(model, name, nn.Parameter(part, requires_grad=former.requires_grad))


def _replace(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, parameter)


def _mismatch(key: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    return f"its config describes {key} as {ours}, but its weights hold {theirs}"


def _shared(model: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    return [several for several in names.values() if len(several) > 1]


def _problem(model: Any, shared: list[list[str]]) -> str:
    """Return what is wrong with the weights that were read; empty if nothing is."""
    for first, *others in shared:
        for other in others:
            if model.get_parameter(first) is not model.get_parameter(other):
                return (
                    f"its config ties {other} to {first}, but its weights hold two that differ; set "
                    "tie_word_embeddings in its config.json to false"
                )
    for name, parameter in model.named_parameters():
        own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if own.is_meta:
            return f"its {name} was not read"
        if bool(own.isnan().any()):
            return f"its {name} holds NaN, with which nothing can be computed; its files may be damaged"
    return ""


def _first_of_all(problem: str) -> str:
    """Return the problem of the first device that has one; empty if none has."""
    problems: list[Any] = [problem]
    if dist.is_initialized():
        problems *= dist.get_world_size()
        dist.all_gather_object(problems, problem)
    return next((one for one in problems if one), "")


def _keep_buffers(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Copy the buffers that were read into those that others, such as a gate's watcher, already refer to."""
    with torch.no_grad():
        for name, former in buffers.items():
            path, _, leaf = name.rpartition(".")
            owner = model.get_submodule(path)
            read = getattr(owner, leaf)
            if read is not former:
                setattr(owner, leaf, former.copy_(read))
