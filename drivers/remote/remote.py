"""One remote model, all that it can do.

What: `Remote`, a connection for each call.
Invariant: nothing stays open between calls, so any thread and any loop may use one.
Interface: `Remote(endpoint)`: `talk`, `answer`, `look`, `draw`, `say`, `hear`, `embed`; async. RemoteError.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llmos.abi.app import Image
from llmos.drivers.remote import media
from llmos.drivers.remote.chat import Chat, Ended, Event, Said, message, talk
from llmos.drivers.remote.endpoint import Endpoint
from llmos.drivers.remote.errors import RemoteGarbled
from llmos.drivers.remote.transport import Transport
from llmos.drivers.remote.wire import Transcript
from llmos.drivers.web.addresses import Gate

MAX_WORDS = 400  # tokens of an answer about a picture


class Remote:
    """A model behind an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def talk(self, chat: Chat) -> AsyncGenerator[Event]:
        """The answer to a conversation, as it comes."""
        async with (
            Transport(self.endpoint) as transport,
            aclosing(talk(transport, self.endpoint, chat)) as events,
        ):
            async for event in events:
                yield event

    async def answer(self, chat: Chat) -> str:
        """The whole answer in words; RemoteGarbled where there are none, or not all."""
        text, ended = "", None
        async for event in self.talk(chat):
            if isinstance(event, Said):
                text += event.text
            elif isinstance(event, Ended):
                ended = event.reason
        if ended == "length":
            raise RemoteGarbled(
                f"{self.endpoint.name} was cut off", why="its answer was too long", do="ask for less"
            )
        if not text.strip():
            raise RemoteGarbled(f"{self.endpoint.name} said nothing", do="ask in other words")
        return text

    async def look(self, image: Image, question: str) -> str:
        """The answer to a question about a picture."""
        asked = message("user", question, [(image.mime, image.data)])
        return await self.answer(Chat(messages=[asked], max_tokens=MAX_WORDS))

    async def draw(self, prompt: str, *, size: str = "", gate: Gate | None = None) -> bytes:
        """An encoded picture of what `prompt` describes."""
        async with Transport(self.endpoint) as transport:
            return await media.draw(transport, self.endpoint, prompt, size=size, gate=gate)

    async def say(self, text: str, *, voice: str = "alloy", speed: float = 1.0) -> bytes:
        """A WAV file in which `voice` says `text`."""
        async with Transport(self.endpoint) as transport:
            return await media.say(transport, self.endpoint, text, voice=voice, speed=speed)

    async def hear(self, sound: bytes, *, language: str = "") -> Transcript:
        """What is said in a recording, given as a file's bytes."""
        async with Transport(self.endpoint) as transport:
            return await media.hear(transport, self.endpoint, sound, language=language)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, in order."""
        async with Transport(self.endpoint) as transport:
            return await media.embed(transport, self.endpoint, texts)
