"""A model that says what it is told: for tests of apps and of the kernel itself, without weights and without jax.

What: a runner whose answers a function gives, a tokenizer of bytes, and a chat template. Everything above it is real:
    engine, pages, grammar, monitor, journal.
Invariant: what it says next depends on its window alone, so a turn that is resumed says the same. It can only say
    what the grammar allows: where the script wants something else, it says the first thing that may be said.
Interface: `ScriptedRunner(script)`, `byte_tokenizer()`, `chat_template()`; `call(syscall, **arguments)` writes a
    call as the model would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import AdapterMismatch
from llmos.drivers.weights import ChatTemplate, Tokenizer
from llmos.drivers.weights.tokenizer import Added
from llmos.kernel.engine.batch import Batch, SampleBatch, Sampled

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter

Script = Callable[[str], str]
"""From the window as text, up to the opening of the answer, to the answer."""

START, END, OPEN, CLOSE = "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"
_CONTROL = {256: START, 257: END, 258: OPEN, 259: CLOSE}
VOCAB = 260

_TEMPLATE = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}
{%- if loop.first and tools %}{{ '\\n\\nFunctions:' }}
{%- for t in tools %}{{ '\\n' }}{{ t | tojson }}{% endfor %}{% endif %}
{{- '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"""


class _Bytes:
    """One token a byte."""

    size = VOCAB

    def encode(self, text: str, *, start: bool) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


def byte_tokenizer() -> Tokenizer:
    """256 bytes and four control tokens."""
    return Tokenizer(_Bytes(), {i: Added(text) for i, text in _CONTROL.items()}, frozenset({257}))


def chat_template() -> ChatTemplate:
    """The common one, with a place for tools behind the first message."""
    return ChatTemplate(_TEMPLATE)


def call(syscall: str, /, **arguments: object) -> str:
    """A call as a model writes it."""
    made = json.dumps({"name": syscall, "arguments": arguments}, ensure_ascii=False)
    return f"{OPEN}\n{made}\n{CLOSE}"


class ScriptedRunner:
    """Implements `engine.Runner`; keeps tokens where a device keeps KV."""

    def __init__(
        self, script: Script, *, pages: int = 4096, page: int = 16, window: int = 8192, processes: int = 64
    ) -> None:
        self.pages, self.page, self.window, self.processes = pages, page, window, processes
        self.vocab, self.identity = VOCAB, "scripted"
        self.budget = self.latency_budget = 4096
        self._kept = np.zeros((pages, page), np.int32)
        self._tokenizer = byte_tokenizer()
        self._reply = lru_cache(1024)(lambda prompt: self._tokenizer.encode_control(script(prompt)))

    def forward(self, batch: Batch) -> list[int]:
        """What comes next in each row that wants logits."""
        pages = batch.tables_BP[batch.slots_T, batch.positions_T // self.page]
        self._kept[pages, batch.positions_T % self.page] = batch.tokens_T
        return [self._next(batch, int(row)) for row in batch.logit_rows_B]

    def _next(self, batch: Batch, row: int) -> int:
        length = int(batch.positions_T[row]) + 1
        pages = batch.tables_BP[batch.slots_T[row], : -(-length // self.page)]
        window = self._kept[pages].reshape(-1)[:length].tolist()
        starts = [i + 1 + len("assistant\n") for i, token in enumerate(window) if token == 256]
        opening = starts[-1] if starts else 0  # without a template the whole text is what it has said
        reply, said = self._reply(self._text(window[:opening])), window[opening:]
        return reply[len(said)] if len(said) < len(reply) else 257

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self._tokenizer.token_bytes, tokens)).decode("utf-8", "replace")

    def read_pages(self, pages: Sequence[int]) -> NDArray[np.generic]:
        """The tokens that these pages hold [P, S]."""
        return self._kept[list(pages)]

    def write_pages(self, pages: Sequence[int], data: NDArray[np.generic]) -> None:
        """Put them there."""
        self._kept[list(pages)] = data

    def poison(self, pages: Sequence[int]) -> None:
        """No token has this number."""
        self._kept[list(pages)] = -1

    def check(self, adapter: Adapter) -> None:
        """A script has no weights to change."""
        raise AdapterMismatch("a scripted model takes no adapters", why="it has no weights to change")

    def attention(self, *_: object) -> None:
        """It looks nowhere."""

    def adapt(self, adapter: Adapter) -> None:
        """See `check`."""
        self.check(adapter)

    def sample(self, logits: object, rows: SampleBatch) -> Sampled:
        """The script's token where the grammar allows it."""
        assert isinstance(logits, list)
        tokens = list(logits)
        if rows.mask_BW is not None:
            for i, token in enumerate(tokens):
                if not rows.mask_BW[i, token // 32] >> (token % 32) & 1:
                    bits = np.unpackbits(rows.mask_BW[i].view(np.uint8), bitorder="little")
                    tokens[i] = int(np.argmax(bits))
        count = len(tokens)
        none = np.zeros((count, 0), np.int32)
        return Sampled(
            np.asarray(tokens, np.int32), np.zeros(count, np.float32), none, none.astype(np.float32)
        )
