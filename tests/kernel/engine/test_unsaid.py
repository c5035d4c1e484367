"""What text must not hold is kept out token by token, whatever the tokens."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.kernel.engine.unsaid import Pattern, Unsaid, Words

PATTERNS: list[Pattern] = [
    ("<call",),
    ('"key"', ":"),
    ('"name"', ":", '"a.b"'),
    ('"name"', ":", '"name"'),
    ("xx",),
]
SPEC = re.compile(rb'<call|"key"\s*:|"name"\s*:\s*"(a\.b|name)"|xx')  # the same as a regular expression
PIECES = [
    *'":<calkeynmx.b \n\t\f',
    *(
        '"na',
        'me"',
        '": "',
        '":"',
        '"key',
        '"key"',
        "<",
        "<<",
        "<cal",
        "call",
        'll"',
        "a.b",
        'a.b"',
        '"a.',
        "  ",
    ),
    *(
        " \n",
        ' : "',
        ':"a',
        "\v:",
        "y",
        '""',
        '"name":',
        '"name": "a',
        "xxx",
        "ax",
        "xb",
        'so "key" : yes',
        "<call",
    ),
    *("é", "\xa0"),
]
TOKENS = [p.encode() for p in PIECES] + [b"\xff", b"\x00", b'"k', b"", b"<call>", b"xx"]
CONTROL = [len(TOKENS) - 2]  # "<call>", but no text
UNSAID = Unsaid(PATTERNS, Words(TOKENS, CONTROL))


def holds(text: bytes) -> bool:
    return SPEC.search(text) is not None


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(range(len(TOKENS))), max_size=12))
def test_a_token_is_out_exactly_where_it_completes_a_pattern(tokens: list[int]) -> None:
    state, text = UNSAID.start, b""
    for token in tokens:
        mask_W = np.full(-(-len(TOKENS) // 32), 0xFFFFFFFF, np.uint32)
        UNSAID.withhold(state, mask_W)
        allowed = np.unpackbits(mask_W.view(np.uint8), bitorder="little")
        for i, more in enumerate(TOKENS):
            assert bool(allowed[i]) == (i in CONTROL or not holds(text + more)), (text, more)
        if not allowed[token]:
            assert UNSAID.after(state, token) is None
            continue
        after = UNSAID.after(state, token)
        assert after is not None
        state, text = after, text + (b"" if token in CONTROL else TOKENS[token])
    assert not holds(text)


def test_nothing_unsaid_withholds_nothing() -> None:
    unsaid = Unsaid([], Words(TOKENS, CONTROL))
    mask_W = np.full(-(-len(TOKENS) // 32), 0xFFFFFFFF, np.uint32)
    unsaid.withhold(unsaid.start, mask_W)
    assert (mask_W == 0xFFFFFFFF).all()
    assert unsaid.after(unsaid.start, 0) == unsaid.start
