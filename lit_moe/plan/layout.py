"""Division of a training step over devices."""

from __future__ import annotations

from dataclasses import dataclass

from lit_core.errors import UserError

#: Bytes of a stored number and of an operand of a matrix product, by Lightning's name of the precision.
PRECISIONS = {"32-true": (4, 4), "bf16-mixed": (4, 2), "16-mixed": (4, 2), "bf16-true": (2, 2)}
#: Bytes of a gradient that FSDP2 reduces, and of a number of the optimizer's states.
FLOAT32 = 4


@dataclass(frozen=True)
class Layout:
    """Division of a training step over devices, and the work of one device.

    Args:
        devices: Number of devices.
        sharded: Whether weights, gradients and optimizer states are divided among the devices, as FSDP2 does.
        expert_parallel: Number of devices among which one set of experts is divided; above 1 only if sharded.
        precision: Lightning's name of the number format, a key of `PRECISIONS`.
        micro_batch_size: Sequences per device and forward pass.
        sequence_length: Tokens per sequence.
        accumulation: Micro-batches per optimizer step.
        gpu: Whether the devices are GPUs, whose experts and optimizer have other implementations.
        reduce_once: Whether gradients are summed over sharded devices once per optimizer step, not per micro-batch.
    """

    devices: int = 1
    sharded: bool = False
    expert_parallel: int = 1
    precision: str = "32-true"
    micro_batch_size: int = 1
    sequence_length: int = 512
    accumulation: int = 1
    gpu: bool = False
    reduce_once: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(
                f"`trainer.precision` is {self.precision}, but a plan knows {', '.join(PRECISIONS)}; give one of them."
            )

    def __str__(self) -> str:
        how = "" if self.devices == 1 else " under FSDP2" if self.sharded else " under DDP"
        experts = f", {self.expert_parallel} of them to a set of experts" if self.expert_parallel > 1 else ""
        batch = f"{self.accumulation} × {self.micro_batch_size} sequences of {self.sequence_length} tokens each"
        return f"{self.devices} device{'s' * (self.devices > 1)}{how}{experts}, {batch}, {self.precision}"

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on one device."""
        return self.micro_batch_size * self.sequence_length

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step over all devices."""
        return self.tokens * self.accumulation * self.devices

    @property
    def stored(self) -> int:
        """Bytes of a stored number."""
        return PRECISIONS[self.precision][0]

    @property
    def operand(self) -> int:
        """Bytes of an operand of a matrix product."""
        return PRECISIONS[self.precision][1]

    @property
    def narrow(self) -> bool:
        """Whether weights are kept in float32 and gathered in 16 bits, the format of all activations then."""
        return self.sharded and self.precision == "bf16-mixed"

    @property
    def casts(self) -> bool:
        """Whether autocast makes copies of weights and activations in 16 bits, for each matrix product."""
        return self.stored != self.operand and not self.narrow

    @property
    def stream(self) -> int:
        """Bytes of a number of the residual stream, and of a gathered weight."""
        return self.operand if self.narrow else self.stored

    @property
    def reduced(self) -> int:
        """Bytes of a gradient that is summed over devices: under FSDP2 always those of float32."""
        return FLOAT32 if self.sharded else self.stored
