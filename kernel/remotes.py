"""`remote`, the system app of models on other machines: ask them, have them look, draw, speak and listen.

What: finds the endpoint and the key of a remote that the owner has named, and calls it for a process.
Invariant: what is said to a remote leaves the machine, so every word of it is a payload and the remote its target: the
    monitor sees who may read it. Keys stay in the kernel's process. What comes back is untrusted; pictures and sounds
    are decoded, bounded, before they are kept.
Interface: `Remotes`, one of `kernel.system.SYSTEM`; `endpoint(kernel, name)`.
"""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmos.abi.app import App, Call, File, Image, Payload, Target, syscall
from llmos.abi.errors import BadArguments, SecretMissing
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.drivers.beneath import Beneath
from llmos.kernel.keeping import keep
from llmos.kernel.systemcall import here

if TYPE_CHECKING:
    from llmos.drivers.remote import Endpoint, Remote
    from llmos.kernel.kernel import Kernel

Name = Annotated[str, Target, "the remote model's name, one of remote.list"]
Words = Annotated[str, Payload, Field(min_length=1, max_length=100_000)]
MAX_TOKENS = 2048  # of an answer


def endpoint(kernel: Kernel, name: str) -> Endpoint:
    """The remote of that name, with its key.

    Raises:
        BadArguments: the owner has named none so.
        SecretMissing: nobody gave its key.
    """
    from llmos.drivers.remote import Endpoint  # a machine without remotes need not wait for it

    known = kernel.config.remotes
    if name not in known:
        near = get_close_matches(name, known, 1)
        there = f"there are {', '.join(known)}" if known else "llmos.yaml names none under `remotes:`"
        raise BadArguments(
            f"there is no remote model {name!r}", why=there, do=f"did you mean {near[0]!r}?" if near else ""
        )
    config, key = known[name], ""
    if config.key is not None:
        secret = config.key.partition(":")[2]
        key = kernel.secrets([secret]).get(secret, "")
        if not key:
            raise SecretMissing(
                f"there is no secret {secret!r}", why=f"the remote {name} needs it",
                do=f"write it into {kernel.config.machine.state / 'secrets' / secret} (mode 600)",
            )  # fmt: skip
    return Endpoint.of(name, config, key)


class Remotes(App, name="remote"):
    """Models on other machines, that the owner has named."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @syscall(effect="none", retry="safe")
    async def list(self, call: Call) -> dict[str, str]:
        """The remote models that can be asked, and what they are called there."""
        return {name: config.model or name for name, config in self._kernel.config.remotes.items()}

    @syscall(effect="fetch", retry="safe", deadline=900)
    async def ask(self, call: Call, model: Name, prompt: Words) -> str:
        """Ask a remote model. It knows nothing of this conversation."""
        from llmos.drivers.remote.chat import Chat, message

        chat = Chat(messages=[message("user", prompt)], max_tokens=MAX_TOKENS)
        return await self._remote(model).answer(chat)

    @syscall(effect="fetch", retry="safe", deadline=900)
    async def look(
        self,
        call: Call,
        model: Name,
        image: Annotated[str, Payload, "a picture file in the working volume"],
        question: Words,
    ) -> str:
        """Ask a remote model that sees a question about a picture."""
        remote, data = self._remote(model), await self._read(call, image)
        from llmos.drivers.media.pictures import open_picture

        picture = await asyncio.to_thread(open_picture, data, image)  # it is one, and bounded
        return await remote.look(Image(data, f"image/{picture.format.lower()}"), question)

    @syscall(effect="fetch", retry="safe", deadline=900)
    async def draw(self, call: Call, model: Name, description: Words) -> str:
        """Have a remote model paint a picture; it is kept in the working volume."""
        data = await self._remote(model).draw(description)
        from llmos.drivers.media.pictures import open_picture

        picture = await asyncio.to_thread(open_picture, data, f"what {model} drew")
        kind = picture.format.lower()
        words = f"A picture of {picture.width} x {picture.height} pixels."
        return await self._keep(call, words, File(f"painting.{kind}", data, f"image/{kind}"))

    @syscall(effect="fetch", retry="safe", deadline=900)
    async def say(
        self,
        call: Call,
        model: Name,
        text: Words,
        voice: Annotated[str, Field(max_length=64), "as the remote calls it"] = "alloy",
    ) -> str:
        """Have a remote model speak a text; the sound is kept in the working volume."""
        data = await self._remote(model).say(text, voice=voice)
        from llmos.drivers.media.sound import open_sound

        sound = await asyncio.to_thread(open_sound, data, f"what {model} said")
        return await self._keep(
            call, f"{sound.seconds:.1f} s of sound.", File("speech.wav", data, "audio/wav")
        )

    @syscall(effect="fetch", retry="safe", deadline=900)
    async def hear(
        self, call: Call, model: Name, audio: Annotated[str, Payload, "a recording in the working volume"]
    ) -> str:
        """Have a remote model write down what is said in a recording."""
        remote, data = self._remote(model), await self._read(call, audio)
        from llmos.drivers.media.sound import open_sound, wav

        sound = await asyncio.to_thread(open_sound, data, audio)
        return (await remote.hear(await asyncio.to_thread(wav, sound))).text

    def _remote(self, name: str) -> Remote:
        from llmos.drivers.remote import Remote

        return Remote(endpoint(self._kernel, name))

    async def _read(self, call: Call, path: str) -> bytes:
        """A file of the caller's working volume."""
        volume = self._kernel.workspace(here(call).process.pid)

        def read() -> bytes:
            with Beneath(volume) as folder:
                return folder.read(path, MAX_DOCUMENT_BYTES)

        return await asyncio.to_thread(read)

    async def _keep(self, call: Call, words: str, file: File) -> str:
        """What is said of a file that is kept in the caller's working volume."""
        me = here(call)
        volume = self._kernel.workspace(me.process.pid)
        kept, names = await asyncio.to_thread(keep, [file], volume, 0)
        me.files += names
        return f"{words}\n{kept}"
