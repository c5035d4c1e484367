"""Models on other machines, behind endpoints that speak OpenAI's protocol.

What: chat with streaming, tools, schemas and pictures; pictures, speech and vectors. The owner names endpoints in
    `remotes:` of llmos.yaml; `Remote(endpoint)` calls one.
Invariant: nothing an endpoint answers is believed before it was checked: sizes, seconds and types are bounded, and what
    does not hold is a typed error. A key goes to its endpoint's own address, in a header, and nowhere else.

    errors.py     what goes wrong            endpoint.py   which model, where, with which key
    transport.py  requests, retries, bounds  wire.py       what replies may hold
    chat.py       conversations              media.py      pictures, speech, vectors
    remote.py     all of it for one endpoint
"""

from llmos.drivers.remote.chat import Chat, Ended, Said, Used, Wrote
from llmos.drivers.remote.endpoint import Endpoint
from llmos.drivers.remote.errors import (
    RemoteError,
    RemoteGarbled,
    RemoteRefused,
    RemoteStalled,
    RemoteUnavailable,
)
from llmos.drivers.remote.remote import Remote

__all__ = [
    "Chat", "Ended", "Endpoint", "Remote", "RemoteError", "RemoteGarbled", "RemoteRefused",
    "RemoteStalled", "RemoteUnavailable", "Said", "Used", "Wrote",
]  # fmt: skip
