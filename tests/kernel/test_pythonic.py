r"""Programs as a grammar: what people write is let through, what does not parse is not."""

from __future__ import annotations

import ast
import json
import random
import warnings

import llguidance
import pytest

from llmos.abi.manifest import Syscall
from llmos.kernel.engine.grammar import GrammarCompiler, Rules
from llmos.kernel.engine.scripted import byte_tokenizer
from llmos.kernel.pythonic import DEPTH, MEDIA, python_rules
from llmos.kernel.syscalls import SyscallTable

WRITTEN = [
    "print(1)",
    "import pandas as pd; df = pd.read_csv('a b.csv'); print(df['price'].mean())",
    'def f(n: int = 3, *more, **rest) -> int:\n    """Doc, "quoted"."""\n\n    if n < 2:\n        return n\n'
    "    a, b = 0, 1\n    for _ in range(n - 1):\n        a, b = b, a + b\n    return b\n\n\nprint(f(100))\n",
    "with open('a.txt') as f, open(\"b\") as g:\n    words = f.read().split()\nprint(sorted(words)[::-1])",
    "x = {k: v for k, v in d.items() if v is not None}\nprint(f\"{x['a']:.2f}\", sep=\"\")",
    "# it's a note\nprint(\"a\\nb\")  # and one more\n\n    # anywhere\nx = 1\n",
    "table = [\n    \"a\",  # first\n    'b',\n]\nvalues = {\"x\": [1, 2.5, .5], **more}",
    "if a not in b and (c := d()) is not None: print(1)\nelif not c:\n    pass\nelse: print(-2 ** +3)",
    "try:\n    x = 1\nexcept (ValueError, KeyError) as e:\n    raise RuntimeError('no') from e\nfinally:\n    del x[0]",
    "@cache\nclass A(B, metaclass=C):\n    x: int = 3\n\n    def __init__(self, x):\n        self.x = x\n",
    "from os import path, sep as s\nfrom . import (a,\n    b)\nassert path, 'no'\nglobal y",
    "df.loc[df['a'] > 3, ['b', 'c']] = 0\nx = a if b else lambda y, z=3: y\nn += 1",
    'join = "".join(str(i)\n    for i in range(10)\n    if i % 2)',
]  # fmt: skip
NOT_WRITTEN = [
    "print(x)}", "print(df['a)", "read files, calculate, count", " x = 1", "for x in y:\nprint(x)", "print(x",
    "if x:\n    y\n      z", "x = = 1", "import", "def f(:\n    pass", "try:\n    x = 1\ny = 2", "1 = x", "x y", "",
    "f() = 3", "lambda = 1", "a == not b", "x := 1\n  y", "else:\n    pass", "return = 3", "'it's'",
]  # fmt: skip
PIECES = (
    "if |for | in |while |with | as |try|except|else|finally|def |class |return|import |from |lambda |not | and | is |"
    "del |yield|raise|pass|x|f|print|True|(|)|[|]|{|}|:|=|==|,|, |;|.|*|**|@|#| |    |+| - |1|2.5|...|'a'|r'b'|'|\\n|"
    '\\\\"s\\\\"|\\\\"'
).split("|")
BEYOND = (
    "mix bytes",
    "f-string",
    "starred",
    "default",
    "argument",
    "unpacking",
    "annotation",
    "triple-quoted",
)  # a grammar


@pytest.fixture(scope="module")
def matcher() -> llguidance.LLMatcher:
    tokenizer = byte_tokenizer()
    rules = Rules(f'%llguidance {{}}\nstart: "\\"" python "\\""\n{python_rules()}')
    return GrammarCompiler(tokenizer, tokenizer.vocab_size).compile(rules)._matcher


def let_through(matcher: llguidance.LLMatcher, program: str) -> bool:
    tokens, at = byte_tokenizer().encode(json.dumps(program, ensure_ascii=False)), matcher.deep_copy()
    return at.validate_tokens(tokens) == len(tokens) and at.consume_tokens(tokens) and at.is_accepting()


@pytest.mark.parametrize("program", WRITTEN)
def test_what_people_write_is_let_through(matcher: llguidance.LLMatcher, program: str) -> None:
    ast.parse(program)
    assert let_through(matcher, program)


@pytest.mark.parametrize("program", NOT_WRITTEN)
def test_what_does_not_parse_is_not(matcher: llguidance.LLMatcher, program: str) -> None:
    assert not let_through(matcher, program)


def test_blocks_are_as_deep_as_is_said(matcher: llguidance.LLMatcher) -> None:
    def nested(depth: int) -> str:
        return "\n".join([*(f"{' ' * 4 * k}if x:" for k in range(depth)), f"{' ' * 4 * depth}pass"])

    assert let_through(matcher, nested(DEPTH)) and not let_through(matcher, nested(DEPTH + 1))


def test_whatever_is_written_at_random_parses(matcher: llguidance.LLMatcher) -> None:
    """But for what is no matter of grammar."""
    tokenizer, rng, seen = byte_tokenizer(), random.Random(7), 0
    quote, pieces = tokenizer.encode('"'), {piece: tokenizer.encode(piece) for piece in PIECES}
    for _ in range(200):
        at, text = matcher.deep_copy(), ""
        at.consume_tokens(quote)
        for _ in range(30):
            fits = (
                p for p in rng.sample(PIECES, len(PIECES)) if at.validate_tokens(pieces[p]) == len(pieces[p])
            )
            piece = next(fits, None)
            if piece is None:
                break
            at.consume_tokens(pieces[piece])
            text += piece
            if at.validate_tokens(quote):
                seen += 1
                complaint = wrong(json.loads(f'"{text}"'))
                assert any(known in complaint for known in (*BEYOND, "")[: len(BEYOND) + (not complaint)]), (
                    text,
                    complaint,
                )
                if complaint:
                    break
    assert seen > 1000


def wrong(program: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(program)
        except SyntaxError as error:
            return error.msg
    return ""


def table(**about: object) -> SyscallTable:
    parameters = {
        "type": "object", "additionalProperties": False, "required": ["code"],
        "properties": {"code": {"type": "string", **about}, "seconds": {"type": "integer"}},
    }  # fmt: skip
    run = Syscall(
        name="shell.run", tool="run", description="Run it.", parameters=parameters, effect="none", retry="safe",
        returns="user", deadline=1.0,
    )  # fmt: skip
    return SyscallTable([run], byte_tokenizer())


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [({"code": "x = 1"}, True), ({"code": "x = 1", "seconds": 3}, True), ({"code": "x = "}, False),
     ({"code": "x = 1", "seconds": "y"}, False), ({"seconds": 3}, False)],
)  # fmt: skip
def test_a_call_with_a_program_parses(arguments: dict[str, object], fits: bool) -> None:
    tokenizer = byte_tokenizer()
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size)
    body = json.dumps({"name": "shell.run", "arguments": arguments})
    words = f"<tool_call>\n{body}\n</tool_call>"
    grammar = compiler.compile(table(contentMediaType=MEDIA).lark(must_call=True, asked="Run it."))
    tokens = tokenizer.encode(words)
    if table().open is not None:
        tokens = [table().open, *tokenizer.encode(f"\n{body}\n"), table()._close]  # type: ignore[list-item]
    assert (grammar._matcher.validate_tokens(tokens) == len(tokens)) is fits
    free = compiler.compile(table().lark(must_call=True, asked="Run it."))
    assert (free._matcher.validate_tokens(tokens) == len(tokens)) is (fits or arguments == {"code": "x = "})
