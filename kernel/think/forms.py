"""Strategies as JSON: for the journal, and for who asks from another process.

What: each is a frozen dataclass that names itself by `kind`; pydantic reads it back, and checks every field.
Invariant: what was dumped is loaded equal. What does not fit is a ConfigError that names the field.
Interface: `strategy_of(said)`, `dump(strategy)`, `load(dumped)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from llmos.abi.errors import ConfigError
from llmos.kernel.think.choosing import Think
from llmos.kernel.think.strategies import BestOf, Revise, SelfConsistency
from llmos.kernel.think.tree import Tree

AnyStrategy = Annotated[Think | SelfConsistency | BestOf | Tree | Revise, Field(discriminator="kind")]
Thinks = Think | SelfConsistency | BestOf | Tree | Revise


def strategy_of(said: object) -> Thinks:
    """What `ask(..., think=...)` was given: a budget, a strategy, or one as JSON.

    Raises:
        ConfigError: it is none of these, or a field of it is out of range.
    """
    if isinstance(said, Thinks):
        return load(dump(said))  # a dataclass does not check its fields
    if isinstance(said, Mapping):
        return load(said)
    if isinstance(said, (str, int)):
        return Think(budget=said)
    raise ConfigError(
        f"{type(said).__name__} is no way to think",
        do='give a budget ("30s", "8x", 4000) or one of llmos.kernel.think',
    )


def dump(strategy: Thinks) -> dict[str, Any]:
    """The strategy as JSON."""
    found: dict[str, Any] = _adapter().dump_python(strategy, mode="json")
    return found


def load(dumped: Mapping[str, Any]) -> Thinks:
    """What `dump` gave; ConfigError."""
    try:
        found: Thinks = _adapter().validate_python(dict(dumped))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "kind"
        raise ConfigError(
            f"that is no way to think: {where}: {first['msg']}", do="see llmos.kernel.think for what there is"
        ) from None
    return found


@cache
def _adapter() -> TypeAdapter[Any]:
    return TypeAdapter(AnyStrategy)
