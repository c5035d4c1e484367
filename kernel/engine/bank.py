"""The bank: adapters on the device, each in a slot, for the steps that want them.

What: a cache of those that steps have lately brought. One that is not there is written into a free slot, or over the
    one that nobody brought for longest.
Invariant: slot 0 is nobody's. A program is compiled for a form of the bank (slots, ranks, which products) and not for
    what is in it: the form grows in few steps, and with the first adapter; nobody pays for it who has none. What a
    token's adapter does to it does not depend on its slot, nor on who else is there.
Interface: `AdapterBank(model, place)`: `slots(adapters)`, `factors`, `form`, `held`; `check(adapter)`. The engine
    thread's own, but for `check`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from llmos.abi.limits import MAX_RANK
from llmos.kernel.model import lora
from llmos.kernel.model.lora import GROUPS, Bank, Factors, groups_of, part, shapes

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.model.load import Model

SLOTS = (8, 16, 32, 64)  # of a step's adapters: one for each of its processes at most
RANKS = (8, 16, 32, 64, 128, MAX_RANK)
RESTING = 256  # steps without an adapter after which its slot is given away rather than the bank made larger


@dataclass(frozen=True, slots=True)
class Form:
    """What a compiled program knows of a bank: room for so many adapters of such a rank, and the products changed."""

    slots: int
    rank: int
    groups: frozenset[str]


class AdapterBank:
    """See the module."""

    def __init__(self, model: Model, place: Callable[[Any], Any] = lambda arrays: arrays) -> None:
        """`place` puts arrays where the model's are."""
        self._model, self._place = model, place
        self._slots: dict[str, int] = {}  # by version, the one that was brought longest ago first
        self._held: dict[str, Adapter] = {}
        self._seen: dict[str, int] = {}  # the step that brought it last
        self._step = 0
        self.form: Form | None = None
        self.factors: Bank = ()
        self._write = jax.jit(_written, donate_argnums=0)

    @cached_property
    def _fingerprint(self) -> str:
        return lora.fingerprint(self._model)

    def check(self, adapter: Adapter) -> None:
        """AdapterMismatch where `adapter` was made for other weights. Any thread."""
        config = self._model.config
        adapter.check(shapes(config), config.layers, self._fingerprint)

    @property
    def held(self) -> tuple[str, ...]:
        """Versions of the adapters that are on the device."""
        return tuple(self._slots)

    @property
    def nbytes(self) -> int:
        """Of what is on the device."""
        return sum(int(array.nbytes) for array in jax.tree.leaves(self.factors))

    def slots(self, adapters: Sequence[Adapter | None]) -> list[int]:
        """The slots of a step's adapters, 0 for none; brings those that are not there."""
        self._step += 1
        wanted = {adapter.version: adapter for adapter in adapters if adapter is not None}
        for version, adapter in wanted.items():
            if version not in self._slots:
                self._bring(adapter, wanted.keys())
            self._seen[version] = self._step
        for version in wanted:
            self._slots[version] = self._slots.pop(version)
        return [0 if adapter is None else self._slots[adapter.version] for adapter in adapters]

    def _bring(self, adapter: Adapter, wanted: Any) -> None:
        idle = [v for v in self._slots if v not in wanted]
        resting = [v for v in idle if self._step - self._seen[v] > RESTING]
        full = self.form is not None and len(self._slots) >= self.form.slots
        if full and (resting or (idle and self.form is not None and self.form.slots == SLOTS[-1])):
            self._drop((resting or idle)[0])
        form = self._form_with(adapter)
        if form != self.form:
            self._remake(form)
        free = next(s for s in range(1, form.slots + 1) if s not in self._slots.values())
        self._put(adapter, free)

    def _drop(self, version: str) -> None:
        del self._slots[version], self._held[version], self._seen[version]

    def _form_with(self, adapter: Adapter) -> Form:
        """The least form that holds what is there, and `adapter`."""
        count = len(self._slots) + 1
        slots, rank = next(n for n in SLOTS if n >= count), next(n for n in RANKS if n >= adapter.rank)
        groups = groups_of(adapter)
        if self.form is None:
            return Form(slots, rank, groups)
        return Form(max(slots, self.form.slots), max(rank, self.form.rank), groups | self.form.groups)

    def _remake(self, form: Form) -> None:
        """A bank of another form, with what the old one held."""
        config, type = self._model.config, self._model.pool_type
        size, S, R = shapes(config), form.slots + 1, form.rank

        def empty(group: str) -> Factors:
            names = GROUPS[group]
            return Factors(
                jnp.zeros((S, len(names)), jnp.int32),
                jnp.zeros((S, len(names), R, size[names[0]][1]), type),
                tuple(jnp.zeros((S, R, size[name][0]), type) for name in names),
            )

        groups = [group for group in GROUPS if group in form.groups]
        self.factors = ()  # let go of before the new one is made
        self.factors = self._place(tuple({g: empty(g) for g in groups} for _ in range(config.layers)))
        self.form, before, self._slots = form, dict(self._slots), {}
        for version, slot in before.items():
            self._put(self._held[version], slot)

    def _put(self, adapter: Adapter, slot: int) -> None:
        assert self.form is not None
        config, type, rank = self._model.config, self._model.pool_type, self.form.rank
        shares = [
            {group: part(adapter, i, group, rank, config, type) for group in layer}
            for i, layer in enumerate(self.factors)
        ]
        self.factors = self._write(self.factors, shares, np.int32(slot))
        self._slots[adapter.version], self._held[adapter.version] = slot, adapter
        self._seen.setdefault(adapter.version, self._step)


def _written(bank: Bank, shares: Any, slot: Any) -> Bank:
    """The bank with an adapter's shares in a slot."""

    def put(whole: Any, share: Any) -> Any:
        return lax.dynamic_update_index_in_dim(whole, share, slot, 0)

    def one(factors: Factors, share: Any) -> Factors:
        ranks, a, b = share
        return Factors(
            put(factors.ranks_SM, ranks), put(factors.a_SMRK, a), tuple(map(put, factors.b_SRN, b))
        )

    return tuple(
        {group: one(layer[group], share[group]) for group in layer}
        for layer, share in zip(bank, shares, strict=True)
    )
