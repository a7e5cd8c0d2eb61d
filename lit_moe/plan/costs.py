"""Cost of a training run, computed from shapes: parameters, FLOPs, time, money, memory and traffic."""

from __future__ import annotations

import torch
from torch import nn

from lit_core.errors import UserError, check_above, require
from lit_core.files.tables import text_table
from lit_core.lightning.float32_steps import AT_ONCE
from lit_core.progress import duration
from lit_core.screen import on_screen
from lit_moe.functional.token_nll import MAX_LOGITS
from lit_moe.module import MoELanguageModel
from lit_moe.nn import Decoder, FeedForward
from lit_moe.nn.attention import Attention
from lit_moe.plan.memory import FLOAT32, Layout, StepMemory, count, mixtures, total

Rows = list[tuple[str, ...]]
OURS_ONLY = "a plan knows the activations of lit_moe's own decoder only; give a decoder of its shape"


def check_costs(tflops: float | None, utilisation: float, price: float | None, device_memory: float | None) -> None:
    """Refuse numbers of a plan that are out of range; see `plan`."""
    check_above(0, tflops=tflops, price=price, device_memory=device_memory)
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
) -> str:
    """Return a report of what a training run costs.

    It covers parameters, FLOPs, time, money, memory of a device and traffic between devices. All are computed from
    shapes, for evenly loaded experts.

    Args:
        model: The language model, which may be on the meta device.
        layout: Division of a training step over devices.
        steps: Optimizer steps of the training; None reports a single step.
        tflops: Peak speed of a device in TFLOP/s, in the number format of the run; null leaves time out.
        utilisation: Share of the peak speed that is reached, including all waiting, above 0 and at most 1.
        price: Price of a device for an hour, in any currency; needs tflops; null leaves money out.
        device_memory: Memory of a device in GiB; the report warns if the run needs more; null never warns.

    Returns:
        Aligned tables.

    Raises:
        UserError: If an argument is out of its range, or the decoder is not lit_moe's own.
    """
    check_costs(tflops, utilisation, price, device_memory)
    decoder = model.decoder
    if not isinstance(decoder, Decoder):
        raise UserError(f"decoder is a {type(decoder).__name__}, but {OURS_ONLY}.")
    if layout.sequence_length > decoder.config.max_seq_len:
        raise UserError(
            f"sequence_length is {layout.sequence_length} but max_seq_len is {decoder.config.max_seq_len}; "
            "shorten the sequences or set the decoder's max_seq_len higher."
        )
    moe, sharing = decoder.config.moe, layout.expert_parallel
    if moe is not None and moe.n_experts % sharing:
        raise UserError(
            f"n_experts is {moe.n_experts}, but {sharing} devices are to share them; give a number that divides it."
        )
    tokens, (modelled, done) = layout.step_tokens * (steps or 1), training_flops(decoder, layout)
    training: Rows = [
        ("tokens", _number(tokens)),
        ("FLOPs of the model", _number(modelled * tokens)),
        ("FLOPs with recomputation", _number(done * tokens)),
    ]
    if tflops is not None:
        hours = done * tokens / (tflops * 1e12 * utilisation) / 3600
        training.append((f"time at {tflops:g} TFLOP/s × {utilisation:g}", duration(hours * 3600 / layout.devices)))
        training.append(("device-hours", f"{hours:,.1f}"))
        if price is not None:
            training.append((f"money at {price:g} for an hour", f"{hours * price:,.0f}"))
    moments = StepMemory(decoder, layout, *optimizer_memory(model, layout)).moments
    moment, parts = max(moments.items(), key=lambda named: total(named[1]))
    tables = [
        _table("Parameters", _parameter_rows(decoder)),
        _table(f"{f'{steps:,} optimizer steps' if steps else 'An optimizer step'} of {layout}", training),
        _table(f"Memory of a device at its largest: {moment}", _byte_rows(parts)),
    ]
    if layout.devices > 1:
        tables.append(_table("Sent by a device in an optimizer step", _byte_rows(wire_bytes(decoder, layout))))
    if device_memory is not None and total(parts) > device_memory * 2**30:
        tables.append(
            f"Does not fit: a device has {device_memory:g} GiB. More devices that shard (FSDP2), a smaller "
            "micro_batch_size or activation_checkpointing need less."
        )
    return "\n\n".join(tables)


def parameters_by_part(decoder: Decoder) -> dict[str, tuple[int, int]]:
    """Return the parameters of each part: all, and those that one token passes through.

    Args:
        decoder: The network, which may be on the meta device.

    Returns:
        Pairs of counts by part; parts that the decoder does not have are left out.
    """
    layers, config = mixtures(decoder), decoder.config.moe
    attention = [module for module in decoder.modules() if isinstance(module, Attention)]
    feed_forward = [] if config else [module for module in decoder.modules() if isinstance(module, FeedForward)]
    share = 1.0 if config is None else config.top_k / config.n_experts
    whole = {
        "embedding": count([decoder.embedding]),
        "attention": count(attention),
        "feed-forward": count(feed_forward),
        "routers": count(part for layer in layers for part in (layer.gate, layer.router)),
        "routed experts": count(layer.experts for layer in layers),
        "shared experts": count(part for layer in layers for part in (layer.shared, layer.shared_gate)),
        "output layer": count([decoder.output]),
    }
    whole["norms"] = count([decoder]) - sum(whole.values())
    return {
        part: (number, round(number * share) if part == "routed experts" else number)
        for part, number in whole.items()
        if number
    }


def training_flops(decoder: Decoder, layout: Layout) -> tuple[int, int]:
    """Return the floating-point operations per trained token: without and with recomputation.

    The backward pass costs two forward passes. Activation checkpointing adds a forward pass of the layers, without the
    last product of a dense feed-forward or of shared experts without a gate, which nothing in the backward pass needs.
    Logits that are made chunk by chunk add a forward pass of the output layer.

    Args:
        decoder: The network, which may be on the meta device.
        layout: Division of a training step over devices.
    """
    config, forward = decoder.config, decoder.flops_per_token(layout.sequence_length)
    head, again = 2 * config.vocab_size * config.d_model, 0
    if config.activation_checkpointing:
        moe = config.moe
        last = config.d_ff if moe is None else 0 if moe.shared_gate else moe.n_shared * moe.expert_width
        again += forward - head - 2 * config.n_layers * config.d_model * last
    if layout.tokens * config.vocab_size > MAX_LOGITS:
        again += head
    return 3 * forward, 3 * forward + again


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


def wire_bytes(decoder: Decoder, layout: Layout) -> dict[str, float]:
    """Return the bytes that a device sends in an optimizer step, by purpose; collectives go around a ring.

    A ring of n devices sends (n - 1) / n of what is gathered or reduced to parts, and twice that where all get the sum.
    DDP sums the gradients once. FSDP2 gathers the weights of layers for each forward and each backward pass, embedding
    and output once for both, and reduces the gradients of trained weights in float32 after each backward pass, or once
    per step; those of experts among the devices that hold the same ones. Expert parallelism sends the tokens to their
    experts and back, D numbers per chosen expert, in each forward pass and its gradients in the backward pass;
    activation checkpointing repeats the forward pass.

    Args:
        decoder: The network, which may be on the meta device.
        layout: Division of a training step over devices.
    """
    n, ep, config = layout.devices, layout.expert_parallel, decoder.config
    if not layout.sharded:
        return {"gradients, summed": 2 * (n - 1) / n * count([decoder], trained=True) * layout.stored}

    def sent_by_layers_and_outer(trained: bool) -> tuple[float, float]:
        whole, inner = count([decoder], trained), count([decoder.layers], trained)
        routed = count((layer.experts for layer in mixtures(decoder)), trained)
        return (n - 1) / n * (inner - routed) + (n - ep) / n * routed / ep, (n - 1) / n * (whole - inner)

    of_layers, of_outer = sent_by_layers_and_outer(trained=False)
    reductions = 1 if layout.reduce_once else layout.accumulation
    sent = {
        "weights, gathered": layout.accumulation * layout.used * (2 * of_layers + of_outer),
        "gradients, reduced": reductions * FLOAT32 * sum(sent_by_layers_and_outer(trained=True)),
    }
    if config.moe is not None and ep > 1:
        rows = layout.accumulation * config.n_layers * config.moe.top_k * layout.tokens
        passes = 6 if config.activation_checkpointing else 4
        sent["tokens, to experts and back"] = passes * (ep - 1) / ep * rows * config.d_model * layout.operand
    return sent


def _parameter_rows(decoder: Decoder) -> Rows:
    parts = parameters_by_part(decoder)
    rows: Rows = [(part, f"{whole:,}", f"{active:,}") for part, (whole, active) in parts.items()]
    return [
        ("", "all", "active"),
        *rows,
        ("sum", *(f"{sum(column):,}" for column in zip(*parts.values(), strict=True))),
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
