"""Cost of a training run, computed from shapes: parameters, FLOPs, time, money, memory and traffic."""

from __future__ import annotations

import torch
from torch import nn

from lit_core.errors import UserError, check_above, require
from lit_core.files.tables import text_table
from lit_core.lightning.float32_steps import AT_ONCE
from lit_core.progress import duration
from lit_core.screen import on_screen
from lit_moe.module import MoELanguageModel
from lit_moe.nn import Decoder, HFDecoder
from lit_moe.plan.hf_network import of_transformers
from lit_moe.plan.layout import FLOAT32, Layout
from lit_moe.plan.memory import StepMemory, total
from lit_moe.plan.network import Network, of_decoder
from lit_moe.plan.traffic import wire_bytes

Rows = list[tuple[str, ...]]


def check_costs(
    tflops: float | None,
    utilisation: float,
    price: float | None,
    device_memory: float | None,
    bandwidth: float | None = None,
) -> None:
    """Refuse numbers of a plan that are out of range; see `plan`."""
    check_above(0, tflops=tflops, price=price, device_memory=device_memory, bandwidth=bandwidth)
    require(0 < utilisation <= 1, "utilisation", utilisation, "above 0 and at most 1")
    if price is not None and tflops is None:
        raise UserError("price is given but tflops is not, and without a speed there is no time to pay; give both.")


def plan(
    model: MoELanguageModel,
    layout: Layout,
    steps: int | None = None,
    tflops: float | None = None,
    utilisation: float = 0.4,
    price: float | None = None,
    device_memory: float | None = None,
    bandwidth: float | None = None,
) -> str:
    """Return a report of what a training run costs.

    It covers parameters, FLOPs, time, money, memory of a device and traffic between devices. All are computed from
    shapes, for evenly loaded experts. What is not known of a model of transformers is left out, and a sentence says so.

    Args:
        model: The language model, which may be on the meta device.
        layout: Division of a training step over devices.
        steps: Optimizer steps of the training; None reports a single step.
        tflops: Peak speed of a device in TFLOP/s, in the number format of the run; null leaves time out.
        utilisation: Share of the peak speed that is reached, above 0 and at most 1; it includes all waiting, or with
            bandwidth all but that for other devices.
        price: Price of a device for an hour, in any currency; needs tflops; null leaves money out.
        device_memory: Memory of a device in GiB; the report warns if the run needs more; null never warns.
        bandwidth: Speed at which a device sends, in GB/s (10^9 bytes), while all others do; the time then has two
            limits, with all sending hidden behind computing and with none; null leaves sending out of the time.

    Returns:
        Aligned tables.

    Raises:
        UserError: If an argument is out of its range, or the model cannot be trained so.
    """
    check_costs(tflops, utilisation, price, device_memory, bandwidth)
    _check_length(model.decoder, layout)
    network = describe(model.decoder, layout)
    sent = wire_bytes(network, layout) if layout.devices > 1 else {}
    training = _work_rows(network, layout, steps or 1)
    training += _time_rows(network, layout, steps or 1, tflops, utilisation, price, bandwidth, sent)
    tables = [
        _table("Parameters", _parameter_rows(network.parts)),
        _table(f"{f'{steps:,} optimizer steps' if steps else 'An optimizer step'} of {layout}", training),
    ]
    needed = 0.0
    if network.knows_memory:
        moments = StepMemory(network, layout, *optimizer_memory(model, layout)).moments
        moment, parts = max(moments.items(), key=lambda named: total(named[1]))
        tables.append(_table(f"Memory of a device at its largest: {moment}", _byte_rows(parts)))
        needed = total(parts)
    if sent:
        tables.append(_table("Sent by a device in an optimizer step", _byte_rows(sent)))
    tables += network.unknown
    if device_memory is not None and needed > device_memory * 2**30:
        tables.append(
            f"Does not fit: a device has {device_memory:g} GiB. More devices that shard (FSDP2), a smaller "
            "micro_batch_size or activation_checkpointing need less."
        )
    return "\n\n".join(tables)


def _check_length(decoder: Decoder | HFDecoder, layout: Layout) -> None:
    name = "max_seq_len" if isinstance(decoder, Decoder) else "max_position_embeddings"
    longest = getattr(decoder.config, name, None)
    if isinstance(longest, int) and layout.sequence_length > longest:
        raise UserError(
            f"sequence_length is {layout.sequence_length} but {name} is {longest}; "
            f"shorten the sequences or set the model's {name} higher."
        )


def _work_rows(network: Network, layout: Layout, steps: int) -> Rows:
    tokens, flops = layout.step_tokens * steps, training_flops(network, layout)
    rows: Rows = [("tokens", _number(tokens))]
    if flops is not None:
        rows.append(("FLOPs of the model", _number(flops[0] * tokens)))
        rows.append(("FLOPs with recomputation", _number(flops[1] * tokens)))
    return rows


def _time_rows(
    network: Network,
    layout: Layout,
    steps: int,
    tflops: float | None,
    utilisation: float,
    price: float | None,
    bandwidth: float | None,
    sent: dict[str, float],
) -> Rows:
    """Return the rows of time and money: one time, or its limits with all sending hidden and with none."""
    sending = None if bandwidth is None or not sent else total(sent) * steps / (bandwidth * 1e9)
    rows: Rows = [] if sending is None else [(f"sending at {bandwidth:g} GB/s", duration(sending))]
    flops = training_flops(network, layout)
    if tflops is None or flops is None:
        return rows
    computing = flops[1] * layout.step_tokens * steps / (tflops * 1e12 * utilisation) / layout.devices
    speed = f"{tflops:g} TFLOP/s × {utilisation:g}"
    if sending is None:
        limits = [computing]
        rows.append((f"time at {speed}", duration(computing)))
    else:
        limits = [max(computing, sending), computing + sending]
        rows.insert(0, (f"computing at {speed}", duration(computing)))
        rows.append(("time, all sending hidden", duration(limits[0])))
        rows.append(("time, no sending hidden", duration(limits[1])))
    hours = [seconds * layout.devices / 3600 for seconds in limits]
    rows.append(("device-hours", " to ".join(f"{one:,.1f}" for one in hours)))
    if price is not None:
        rows.append((f"money at {price:g} for an hour", " to ".join(f"{one * price:,.0f}" for one in hours)))
    return rows


def describe(decoder: Decoder | HFDecoder, layout: Layout) -> Network:
    """Return what a plan knows of a network.

    Args:
        decoder: The network, which may be on the meta device.
        layout: Division of a training step over devices.

    Raises:
        UserError: If the experts of a model of transformers cannot be divided.
    """
    return of_decoder(decoder, layout) if isinstance(decoder, Decoder) else of_transformers(decoder, layout)


def training_flops(network: Network, layout: Layout) -> tuple[float, float] | None:
    """Return the floating-point operations per trained token, without and with recomputation; None where not known.

    The backward pass costs two forward passes. Activation checkpointing adds a forward pass of the layers. Logits that
    are made chunk by chunk add a forward pass of the output layer.

    Args:
        network: What is known of the network for the layout.
        layout: Division of a training step over devices.
    """
    if network.flops is None:
        return None
    head = 2 * network.head if network.in_chunks(layout) else 0
    return 3 * network.flops, 3 * network.flops + network.again + head


def optimizer_memory(model: MoELanguageModel, layout: Layout) -> tuple[float, int]:
    """Return the bytes of the optimizer's states per trained weight, and the bytes of its workspace.

    Frozen weights have neither. The states are counted after a step of the optimizer on the meta device. The workspace
    is that of AdamW: nothing if it is fused, the size of all weights if it updates them at once, as torch does on GPUs,
    otherwise twice the largest weight. Weights in 16 bits have their lower bits among the states, and the workspace
    holds some of them at a time, with their gradients, in float32.

    Args:
        model: The language model, which may be on the meta device; it is not changed.
        layout: Division of a training step over devices.
    """
    with torch.device("meta"):
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        weights = nn.ParameterList(nn.Parameter(torch.empty_like(weight)) for weight in trained)
    built = model.optimizer(weights)
    fused, foreach = (built.defaults.get(name) for name in ("fused", "foreach"))
    for group in built.param_groups:
        group.update({name: False for name in ("fused", "foreach") if name in group})  # not on the meta device
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    built.step()
    sizes = [weight.numel() for weight in weights]
    states = [value for state in built.state.values() for value in state.values() if torch.is_tensor(value)]
    per_weight = sum(value.numel() for value in states if value.dim()) / sum(sizes)
    low = layout.stored < FLOAT32
    shards = layout.devices if layout.sharded else 1
    stepped = min(sum(sizes), AT_ONCE * shards + max(sizes)) if low else sum(sizes)
    workspace = 2 * FLOAT32 * stepped if low else 0
    if not fused:
        at_once = layout.gpu if foreach is None else foreach
        workspace += FLOAT32 * (stepped if at_once else 2 * max(sizes))
    return FLOAT32 * per_weight + 2 * low, workspace


def _parameter_rows(parts: dict[str, tuple[int, int | None]]) -> Rows:
    known = [active for _, active in parts.values() if active is not None]
    whole = sum(one for one, _ in parts.values())
    rows = [*parts.items(), ("sum", (whole, sum(known) if len(known) == len(parts) else None))]
    return [
        ("", "all", "active"),
        *((part, f"{every:,}", "not known" if active is None else f"{active:,}") for part, (every, active) in rows),
    ]


def _byte_rows(parts: dict[str, float]) -> Rows:
    rows: Rows = [(part, _bytes(size)) for part, size in parts.items() if size]
    return [*rows, ("sum", _bytes(total(parts)))]


def _table(title: str, rows: Rows) -> str:
    return "\n".join([on_screen(title), *(f"  {line}" for line in text_table(rows))])


def _number(value: float) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:,.2f} {unit}"
    return f"{value:,.0f} B"
