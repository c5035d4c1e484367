"""One remote model: where it is, what it is called there, and how patient we are.

What: what `remotes: NAME:` of llmos.yaml says, with the key that its secret holds.
Invariant: the address is the owner's own word, never a model's. A key is not printed, and goes over TLS or not beyond
    this machine.
Interface: `Endpoint`; `Endpoint.of(name, config, key)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmos.abi.config import RemoteConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A model behind an endpoint.

    Args:
        name: what the owner calls it; also its name as a reader of labelled words.
        url: of the protocol's root, such as `https://api.example.org/v1`.
        model: what it is called there.
        key: of the account there; "" for none.
        stall: seconds without a byte after which an answer is given up.
        seconds: for one answer in all, retries included.
        retries: of a request that met an overloaded or broken endpoint.
    """

    name: str
    url: str
    model: str
    key: str = field(default="", repr=False)
    stall: float = 60.0
    seconds: float = 600.0
    retries: int = 3

    @classmethod
    def of(cls, name: str, config: RemoteConfig, key: str = "") -> Endpoint:
        """The endpoint that the owner called `name`."""
        return cls(
            name=name, url=config.url.rstrip("/"), model=config.model or name, key=key, stall=config.stall,
            seconds=config.seconds, retries=config.retries,
        )  # fmt: skip
