"""Pictures, speech and vectors of remote models.

What: `images/generations`, `audio/speech`, `audio/transcriptions`, `embeddings`.
Invariant: bytes that come back are no more than bytes: whoever uses them decodes them by a driver that bounds them.
    A picture that an endpoint only names by an address is fetched as the browser fetches: the address is the endpoint's
    word, not the owner's, so nothing private is gone to, and no key goes along.
Interface: `draw`, `say`, `hear`, `embed`, over a `Transport` and its `Endpoint`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from llmos.drivers.remote.endpoint import Endpoint
from llmos.drivers.remote.errors import RemoteGarbled
from llmos.drivers.remote.transport import MAX_MEDIA, Transport
from llmos.drivers.remote.wire import MAX_VECTORS, Picture, Pictures, Transcript, Vectors, read
from llmos.drivers.web.addresses import Gate


async def draw(
    transport: Transport, at: Endpoint, prompt: str, *, size: str = "", gate: Gate | None = None
) -> bytes:
    """An encoded picture of what `prompt` describes.

    Args:
        size: such as "1024x1024"; "" for the endpoint's own.
        gate: of a picture's own address; the public internet where it is not given.
    """
    wish = {"model": at.model, "prompt": prompt, "n": 1, **({"size": size} if size else {})}
    _, data = await transport.post("images/generations", json=wish, most=MAX_MEDIA)
    return await _picture(read(Pictures, data, at.name).data[0], at, gate)


async def _picture(picture: Picture, at: Endpoint, gate: Gate | None) -> bytes:
    if picture.b64_json:
        try:
            return base64.b64decode(picture.b64_json, validate=True)
        except (binascii.Error, ValueError):
            raise _garbled(at, "its picture is no base64") from None
    if not picture.url:
        raise _garbled(at, "it sent neither a picture nor its address")
    from llmos.drivers.web.fetch import Client

    client = Client(gate or Gate())
    try:
        return (await client.get(picture.url, most=MAX_MEDIA, seconds=at.stall)).data
    finally:
        await client.aclose()


async def say(transport: Transport, at: Endpoint, text: str, *, voice: str, speed: float = 1.0) -> bytes:
    """A WAV file in which `voice` says `text`."""
    wish = {"model": at.model, "input": text, "voice": voice, "speed": speed, "response_format": "wav"}
    mime, data = await transport.post("audio/speech", json=wish, most=MAX_MEDIA)
    if mime == "application/json" or not data:
        raise _garbled(at, "it sent no sound")
    return data


async def hear(transport: Transport, at: Endpoint, sound: bytes, *, language: str = "") -> Transcript:
    """What is said in a recording, given as a file's bytes."""
    form = {
        "model": at.model,
        "response_format": "verbose_json",
        **({"language": language} if language else {}),
    }
    files = {"file": ("recording.wav", sound, "audio/wav")}
    _, data = await transport.post("audio/transcriptions", data=form, files=files)
    return read(Transcript, data, at.name)


async def embed(transport: Transport, at: Endpoint, texts: Sequence[str]) -> list[list[float]]:
    """A vector for each text, in order, all of one length."""
    found: list[list[float]] = []
    for start in range(0, len(texts), MAX_VECTORS):
        part = list(texts[start : start + MAX_VECTORS])
        wish = {"model": at.model, "input": part, "encoding_format": "float"}
        _, data = await transport.post("embeddings", json=wish, most=MAX_MEDIA)
        vectors = sorted(read(Vectors, data, at.name).data, key=lambda vector: vector.index)
        if [vector.index for vector in vectors] != list(range(len(part))):
            raise _garbled(at, f"{len(vectors)} vectors for {len(part)} texts, or not one for each")
        found += [vector.embedding for vector in vectors]
    if len({len(vector) for vector in found}) > 1:
        raise _garbled(at, "its vectors have different lengths")
    return found


def _garbled(at: Endpoint, why: str) -> RemoteGarbled:
    return RemoteGarbled(
        f"what {at.name} answered cannot be used", why=why, do="look at its `model` in llmos.yaml"
    )
