"""What a training run takes: computing, days, money, energy and memory, before anybody begins it.

What: from the size of a model, the tokens it is to read and the devices there are to a `Plan`.
Invariant: every number comes out of a formula below, with its source; what nobody can know (how well the devices are
    used, what an hour costs) is an argument with a default that says what it was taken from.
Interface: `plan(params, tokens, device, count, …) -> Plan`; `DEVICES`, `Device`, `Shape`.

Computing: a token costs 6 operations for each parameter, 2 forward and 4 backward (Kaplan et al. 2020, arXiv
2001.08361), and attention another 6 * layers * dim * sequence, for it sees half of the sequence before it (Chowdhery et
al. 2022, arXiv 2204.02311, appendix B, who count the whole). What is computed again to save memory is not
counted: that is what "model FLOPs utilisation" means.
Memory of a device: 2 bytes a parameter, 2 a gradient, 12 for Adam (an f32 copy and two moments; Rajbhandari et al.
2020, arXiv 1910.02054), each divided among the devices as far as the stage of sharding says; activations of a layer
34 * sequence * batch * dim bytes without stored attention scores (Korthikanti et al. 2022, arXiv 2205.05198), of which
2 stay where layers are computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmos.abi.errors import PlanError

Sharding = Literal["none", "optimiser", "gradients", "parameters"]
SHARDINGS: tuple[Sharding, ...] = ("none", "optimiser", "gradients", "parameters")
HOUR, DAY = 3600.0, 86400.0
MFU = 0.45  # of a well-tuned run on thousands of devices: what Llama 2 70B's published hours come to
PUE = (
    1.1  # a data centre's energy for each of its computers' (Touvron et al. 2023, arXiv 2307.09288, take 1.1)
)
SEQUENCE = 4096


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator: `flops` dense bf16 operations a second, `memory` bytes, `watts`, `price` dollars an hour."""

    name: str
    flops: float
    memory: float
    watts: float
    price: float


# Operations, memory and watts: the makers' data sheets (NVIDIA V100 SXM2, A100 80GB SXM, H100 SXM, H200 SXM, B200, L4,
# RTX 4090; AMD MI300X), without sparsity; TPU v4: Jouppi et al. 2023, arXiv 2304.01433. Prices: round figures of what
# renting many for months cost when the table was made (2024-25); they move, so give your own.
_GB = 1e9
DEVICES = {
    device.name: device
    for device in (
        Device("v100", 125e12, 32 * _GB, 300, 0.6),
        Device("a100", 312e12, 80 * _GB, 400, 1.2),
        Device("h100", 989e12, 80 * _GB, 700, 2.2),
        Device("h200", 989e12, 141 * _GB, 700, 2.6),
        Device("b200", 2250e12, 192 * _GB, 1000, 4.0),
        Device("mi300x", 1307e12, 192 * _GB, 750, 2.2),
        Device("l4", 121e12, 24 * _GB, 72, 0.5),
        Device("rtx4090", 165e12, 24 * _GB, 450, 0.4),
        Device("tpu-v4", 275e12, 32 * _GB, 192, 1.6),
    )
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What attention and activations depend on."""

    layers: int
    dim: int

    @classmethod
    def of(cls, params: float) -> Shape:
        """A usual one: 12 * layers * dim^2 parameters, a hundred times as wide as deep (Llama 2 70B: 102)."""
        layers = max(1, round((params / (12 * 100**2)) ** (1 / 3)))
        return cls(layers, max(1, round((params / (12 * layers)) ** 0.5)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run takes. Memory is bytes a device, energy joules, cost dollars."""

    params: float
    tokens: float
    device: Device
    count: int
    mfu: float
    flops: float
    attention_share: float  # of the operations
    seconds: float
    cost: float
    energy: float
    tokens_per_s: float
    weights: float
    gradients: float
    optimiser: float
    activations: float

    @property
    def device_hours(self) -> float:
        return self.seconds * self.count / HOUR

    @property
    def days(self) -> float:
        return self.seconds / DAY

    @property
    def memory(self) -> float:
        return self.weights + self.gradients + self.optimiser + self.activations

    @property
    def fits(self) -> bool:
        """Whether a device holds its share, with a tenth left for what else it needs."""
        return self.memory <= 0.9 * self.device.memory

    @property
    def file(self) -> float:
        """Bytes of the model when it is done, at two a parameter."""
        return 2 * self.params

    @property
    def optimal_tokens(self) -> float:
        """The tokens that would be best for this size by loss alone: 20 a parameter (Hoffmann et al. 2022,
        arXiv 2203.15556). Models that are to be used much are trained on more."""
        return 20 * self.params


def plan(
    params: float,
    tokens: float,
    device: Device,
    count: int,
    *,
    mfu: float = MFU,
    price: float | None = None,
    sequence: int = SEQUENCE,
    batch: int = 1,
    shape: Shape | None = None,
    sharding: Sharding = "parameters",
    recompute: bool = True,
) -> Plan:
    """Plan a run.

    Args:
        params, tokens: of the model, and of all that it reads.
        mfu: the share of its operations that a device spends on the model.
        price: dollars a device and hour; None takes the table's.
        sequence, batch: tokens of a sequence, and sequences that a device computes at once.
        shape: layers and width, where attention and activations are to be exact.
        sharding: what is divided among the devices: nothing, the optimiser's state, gradients too, parameters too.
        recompute: activations within a layer are computed again backward, not stored.

    Raises:
        PlanError: a number that cannot be meant.
    """
    numbers = dict(
        params=params, tokens=tokens, count=count, mfu=mfu, sequence=sequence, batch=batch, flops=device.flops
    )
    for name, number in numbers.items():
        if not 0 < number < 1e40:
            raise PlanError(
                f"{name} is {number}", why="a run needs more than none of it", do="give a positive number"
            )
    if mfu > 1:
        raise PlanError(f"mfu is {mfu}", why="no device does more than it can", do="give a share: 0.45")
    if price is not None and not 0 <= price < 1e9:
        raise PlanError(f"the price is {price}", do="give dollars a device and hour")
    shape = shape or Shape.of(params)
    attention = 6.0 * shape.layers * shape.dim * sequence
    flops = (6 * params + attention) * tokens
    rate = device.flops * mfu * count
    seconds = flops / rate
    stage = SHARDINGS.index(sharding)
    inner = 34.0 * sequence * batch * shape.dim
    kept = 2.0 * sequence * batch * shape.dim * shape.layers + inner if recompute else inner * shape.layers
    return Plan(
        params=params, tokens=tokens, device=device, count=count, mfu=mfu, flops=flops,
        attention_share=attention / (6 * params + attention), seconds=seconds,
        cost=seconds * count / HOUR * (device.price if price is None else price),
        energy=seconds * count * device.watts * PUE, tokens_per_s=tokens / seconds,
        weights=2 * params / (count if stage >= 3 else 1), gradients=2 * params / (count if stage >= 2 else 1),
        optimiser=12 * params / (count if stage >= 1 else 1), activations=kept,
    )  # fmt: skip
