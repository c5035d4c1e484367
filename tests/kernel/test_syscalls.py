"""Syscalls in the model's words: whatever a model writes under the grammar is text, or calls that fit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, Field

from llmos.abi.app import App, syscall
from llmos.abi.errors import GrammarError
from llmos.abi.manifest import Manifest
from llmos.drivers.weights import Tokenizer, open_weights
from llmos.kernel.engine.grammar import GrammarCompiler, PlainText, Rules, TokenGrammar
from llmos.kernel.mending import faults, mendable
from llmos.kernel.syscalls import SyscallTable, error_text


class Line(BaseModel):
    """One line of an order."""

    item: str
    count: Annotated[int, Field(ge=1, le=99)] = 1


class Shop(App):
    """A shop."""

    @syscall(effect="none")
    def price(self, item: str, currency: Literal["EUR", "USD"] = "EUR") -> float:
        """The price of an item."""
        return 1.0

    @syscall(effect="pay")
    def order(self, lines: list[Line], note: str | None = None) -> str:
        """Order things."""
        return ""

    @syscall(effect="none")
    def hours(self) -> str:
        """When it is open."""
        return ""


@pytest.fixture(scope="module", params=["qwen2.5-coder-0.5b", "smollm2-135m"])
def tokenizer(request: pytest.FixtureRequest, weights_path: Callable[[str], Path]) -> Tokenizer:
    from llmos.drivers.weights import find

    return open_weights(find(request.param)).tokenizer()


@pytest.fixture(scope="module")
def table(tokenizer: Tokenizer) -> SyscallTable:
    return SyscallTable(Manifest.of(Shop).syscalls, tokenizer)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size)


def allowed(grammar: TokenGrammar, vocab: int) -> np.ndarray:
    mask_W = np.zeros((1, -(-vocab // 32)), np.uint32)
    grammar.masks([], mask_W)
    return np.nonzero(np.unpackbits(mask_W.view(np.uint8), bitorder="little"))[0]


def is_allowed(grammar: TokenGrammar, token: int, vocab: int) -> bool:
    mask_1W = np.zeros((1, -(-vocab // 32)), np.uint32)
    grammar.masks([], mask_1W)
    return bool(mask_1W[0, token // 32] >> (token % 32) & 1)


def write(grammar: TokenGrammar, tokenizer: Tokenizer, rng: np.random.Generator, limit: int) -> list[int]:
    """Random words under a grammar, as a model with random logits writes them; tends towards ends of strings."""
    out: list[int] = []
    ends = {t for c in ('"', '"}', '"]', "}", "]") for t in tokenizer.encode(c)}
    while len(out) < limit and not grammar.finished:
        ids = allowed(grammar, tokenizer.vocab_size)
        near = [i for i in ids.tolist() if i in ends]
        token = int(rng.choice(near if near and rng.random() < 0.5 else ids))
        if token in tokenizer.eos_ids:
            break
        out += [token, *grammar.accept(token)]
    return out


def test_random_calls_parse_and_fit_their_schema(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    rng, calls = np.random.default_rng(0), []
    for _ in range(40):
        _, found = table.read(write(compiler.compile(table.lark(must_call=True)), tokenizer, rng, 300))
        calls += found
    assert {c.syscall for c in calls} == {"shop.price", "shop.order", "shop.hours"}
    for call in calls:
        jsonschema.validate(call.arguments, table.syscalls[call.syscall].parameters)


def test_calls_keep_to_what_the_question_and_the_descriptions_say(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    class Town(App):
        """A town."""

        @syscall(effect="none")
        def shops(
            self,
            place: Annotated[str, "The city and state, e.g. Salem, OR"],
            rating: float = 0.0,
            size: str = "any",
        ) -> str:
            """Shops of a town."""
            return ""

    rng, table = np.random.default_rng(0), SyscallTable(Manifest.of(Town).syscalls, tokenizer)
    helped, free = (table.lark(must_call=True, asked=asked) for asked in ("Shops with a rating of 4", ""))
    seen: dict[Rules, list[dict[str, Any]]] = {helped: [], free: []}
    for rules, calls in seen.items():
        for _ in range(5):
            calls += [c.arguments for c in table.read(write(compiler.compile(rules), tokenizer, rng, 300))[1]]
    assert seen[helped] and all("rating" in a and ", " in a["place"] for a in seen[helped])
    assert not all("size" in a for a in seen[helped])
    assert not all("rating" in a and ", " in a["place"] for a in seen[free])


def test_text_comes_back_as_text(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    said = 'It costs {"price": 3}.\n```json\n{"a": "name"}\n```'
    grammar = compiler.compile(table.lark())
    tokens = tokenizer.encode(said)
    for token in tokens:
        assert token in allowed(grammar, tokenizer.vocab_size)
        assert grammar.accept(token) == []
    assert tokenizer.eos_ids & set(allowed(grammar, tokenizer.vocab_size).tolist())
    assert table.read(tokens) == (said, [])


@pytest.mark.parametrize(
    "text", ['{"name": "shop.price"', 'So:\n```json\n{"arguments": {}, "name" : "shop.hours"']
)
def test_text_cannot_look_like_a_call(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer, text: str
) -> None:
    grammar = compiler.compile(table.lark())
    with pytest.raises(GrammarError):
        for token in tokenizer.encode(text):
            grammar.accept(token)


@pytest.mark.parametrize(
    "text",
    [
        "<",
        "  {",
        "```json",
        "[1",
        ">{",
        "(see",
        "Well: <tool_call",
        'Well: {"arguments": {}',
        'It is {"name": "shop.hours"',
    ],
)
def test_words_alone_neither_begin_nor_hold_a_call(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer, text: str
) -> None:
    grammar = compiler.compile(table.lark(no_call=True))
    with pytest.raises(GrammarError):
        for token in tokenizer.encode(text):
            grammar.accept(token)


@pytest.mark.parametrize(
    "text", ["The question asks for tea.", "This response says 3.", " The user wants tea."]
)
def test_words_behind_results_do_not_speak_of_the_question(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer, text: str
) -> None:
    grammar = compiler.compile(table.lark(no_call=True))
    with pytest.raises(GrammarError):
        for token in tokenizer.encode(text):
            grammar.accept(token)


def accepts(grammar: TokenGrammar, tokenizer: Tokenizer, arguments: object) -> bool:
    """Whether a call of the price with these arguments may be written, to its end."""
    said = f'<tool_call>\n{{"name": "shop.price", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
    wanted, at = tokenizer.encode_control(said), 0
    try:
        while at < len(wanted):
            forced = grammar.accept(wanted[at])
            if forced != wanted[at + 1 : at + 1 + len(forced)]:
                return False
            at += 1 + len(forced)
    except GrammarError:
        return False
    return bool(grammar.finished or tokenizer.eos_ids & set(allowed(grammar, tokenizer.vocab_size).tolist()))


@pytest.mark.parametrize(
    ("given", "error", "wrong"),
    [
        ("print(df['prise'])", "KeyError: 'prise'", "'prise"),
        ("print(df['price'])", "KeyError: 'price', of price_eur", "'price'"),
        ('print(df["prise"])', "KeyError: 'prise'", '"prise'),
        ("find .bak -type f", "find: ‘.bak’: No such file or directory", " .bak"),
        ("wc -l a.log", "wc: a.log: No such file or directory", " a.log"),
        ("np.fib(9)", "module 'numpy' has no attribute 'fib'", ".fib"),
        ("print(1", "'(' was never closed", None),
        ("x = unprised", "KeyError: 'prise'", None),
    ],
)
def test_what_an_error_names_is_not_written_again(
    table: SyscallTable,
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    given: str,
    error: str,
    wrong: str | None,
) -> None:
    found = list(faults(table.syscalls["shop.price"], {"item": given}, error))
    assert [fault.pattern for fault in found] == ([] if wrong is None else [(wrong,)])
    grammar = compiler.compile(table.lark(must_call=True, faults=found))
    assert accepts(grammar.copy(), tokenizer, {"item": given}) is (wrong is None)
    assert accepts(grammar, tokenizer, {"item": "tea"})


@pytest.mark.parametrize(
    ("given", "error", "right", "wrong"),
    [
        (
            "df['weight'].max()",
            "KeyError: 'weight'\nThe columns are: animal, kg.",
            "df['kg'].min()",
            "df['height'].max()",
        ),
        ('df["ab"]', "KeyError: 'ab'\nThe columns are: a b, \"c\".", 'df["a b"]', 'df["x"]'),
        (
            "wc -l a.log",
            "wc: a.log: No such file\n[the files are: b.log, c/a.log]",
            "wc -l c/a.log | sort",
            "ls a.log",
        ),
        ("reprot.txt", "there is no 'reprot.txt'. there is 'report.txt'.", "report.txt", "reports.txt"),
        ("x.txt", "there is no 'x.txt'. there are a.txt, b.txt.", "b.txt", "c.txt"),
    ],
)
def test_what_there_is_stands_in_the_wrong_words_place(
    table: SyscallTable,
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    given: str,
    error: str,
    right: str,
    wrong: str,
) -> None:
    found = list(faults(table.syscalls["shop.price"], {"item": given, "currency": "EUR"}, error))
    rules = table.lark(must_call=True, faults=found)
    assert accepts(compiler.compile(rules), tokenizer, {"item": right, "currency": "EUR"})
    assert not accepts(compiler.compile(rules), tokenizer, {"item": wrong, "currency": "EUR"})
    assert not accepts(compiler.compile(rules), tokenizer, {"item": given, "currency": "EUR"})
    again = list(faults(table.syscalls["shop.price"], {"item": right, "currency": "EUR"}, "it is all wrong"))
    assert not again, "an error that names nothing holds nothing"


def test_errors_that_another_call_may_mend() -> None:
    told = [
        {"type": "AppFailed", "message": 'no "tea"\nhere'}, {"type": "CallDenied", "message": "never"},
        {"type": "BadArguments", "message": "nothing was done"},
    ]  # fmt: skip
    results = "<r>" + "</r>\n<r>".join(map(error_text, told)) + "</r>"
    assert mendable(results) == ['no "tea"\nhere', "nothing was done"]
    assert mendable(results, undone=True) == ["nothing was done"]


LIKE_A_CALL = re.compile(
    r'</?tool_call|"(arguments|parameters)"\s*:|"(name|function)"\s*:\s*"shop\.(price|order|hours)"', re.ASCII
)
NASTY = [
    *'":<{}[`x\n',
    *(" ", "  ", ": ", '"name"', '"function"', "name", '"nam', "function", '"shop.hours"', '"shop.hour', "shop.price"),
    *('"shop.order', '": "', '"name": "', '"name": "shop.', '"arguments"', '"arguments', '"parameters" ', '"parameter'),
    *("<tool", "_call", "<tool_cal", "l", "<<", 'e": 1', "Well, ", "\t:", "é", '""', "tool_call>", "</tool_call>"),
]  # fmt: skip
NEARLY = [
    *('Well: {|"|name|"|: |"|shop.|hours|"', '"function"| |:|"shop.price"', '"name|": "|shop.order|"'),
    *("So |<|tool|_ca|ll", 'Well: |"|arguments|"|: {}', '{|"parameters"|\t|\n|:', '"name": "|"name"|:|  |"shop.hours"'),
    "<<|tool_call|>",
]  # fmt: skip


@pytest.mark.parametrize("no_call", [False, True])
def test_free_text_is_all_that_does_not_look_like_a_call(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer, no_call: bool
) -> None:
    """The grammar admits what its specification, a regular expression, admits: letter by letter, however it is cut
    into tokens."""
    rng, seen = np.random.default_rng(3), Counter[bool]()
    for _ in range(300):
        pieces = rng.choice(NASTY, rng.integers(0, 9)).tolist()
        if rng.random() < 0.7:  # a call or nearly one
            pieces[1:1] = rng.choice(NEARLY).split("|")
            pieces[rng.integers(len(pieces))] = str(rng.choice([*NASTY, *" " * 40]))
        text = "".join(pieces)
        fits = not LIKE_A_CALL.search(text) and (
            not no_call or re.match(r"\s*[^\s<>{}()\[\]`|&%~^\\/=:;,!?@]", text) is not None
        )
        cut = [text] if rng.random() < 0.5 else text
        grammar = compiler.compile(table.lark(no_call=no_call))
        try:
            for token in (t for piece in cut for t in tokenizer.encode(piece)):
                may = is_allowed(grammar, token, tokenizer.vocab_size)
                forced = grammar.accept(token)
                assert may
                if forced:  # where letters open a call, one has begun
                    assert table.open is None
                    break
            done = any(is_allowed(grammar, token, tokenizer.vocab_size) for token in tokenizer.eos_ids)
        except GrammarError:
            done = False
        assert done == fits, text
        seen[fits] += 1
    assert min(seen.values()) > 30, seen


def test_a_draft_is_masked_as_its_tokens_one_by_one(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    draft = tokenizer.encode('So: {"function" : "shop.hours')
    grammar, width = compiler.compile(table.lark()), -(-tokenizer.vocab_size // 32)
    masks_W = np.zeros((1 + len(draft), width), np.uint32)
    for _ in range(2):  # asking changes nothing
        grammar.masks(draft, masks_W)
    for row_W, token in zip(masks_W, [*draft, None], strict=True):
        bits = np.unpackbits(row_W.view(np.uint8), bitorder="little")
        assert np.array_equal(np.nonzero(bits)[0], allowed(grammar, tokenizer.vocab_size))
        if token is not None:
            grammar.accept(token)
    assert tokenizer.encode('"')[0] not in allowed(grammar, tokenizer.vocab_size)


def test_words_alone_are_any_other_words(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    grammar = compiler.compile(table.lark(no_call=True))
    said = 'Like so:\n```python\nprint({"a": [1, 2]})\n```\n<b>bold</b>'
    for token in tokenizer.encode(said):
        assert grammar.accept(token) == []
    assert tokenizer.eos_ids & set(allowed(grammar, tokenizer.vocab_size).tolist())
    rng = np.random.default_rng(2)
    for _ in range(5):
        written = write(compiler.compile(table.lark(no_call=True)), tokenizer, rng, 60)
        assert table.read(written)[1] == []


def test_several_calls_after_some_words(
    table: SyscallTable, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    grammar = compiler.compile(table.lark())
    one = '<tool_call>\n{"name": "shop.price", "arguments": {"item": "tea"}}\n</tool_call>'
    two = '<tool_call>\n{"name": "shop.hours", "arguments": {}}\n</tool_call>'
    wanted = tokenizer.encode("Let me look.\n") + tokenizer.encode_control(f"{one}\n{two}")
    written: list[int] = []
    while len(written) < len(wanted):
        token = wanted[len(written)]
        forced = grammar.accept(token)
        written += [token, *forced]
        assert written == wanted[: len(written)], "what is forced is what the tokenizer would write"
    said, calls = table.read(written)
    assert said == "Let me look.\n"
    assert [(c.syscall, c.arguments) for c in calls] == [("shop.price", {"item": "tea"}), ("shop.hours", {})]


def test_a_call_that_was_cut_off_is_none(table: SyscallTable, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode_control('Well. <tool_call>\n{"name": "shop.price", "argu')
    assert table.read(tokens) == ("Well. ", [])


def test_without_grants_random_words_are_no_call(tokenizer: Tokenizer) -> None:
    """100,000 words of a model with random logits: none opens a call."""
    forbidden = tokenizer.control_ids - tokenizer.eos_ids
    grammar = PlainText(forbidden, tokenizer.vocab_size)
    mask_W = np.full((1, -(-tokenizer.vocab_size // 32)), 0xFFFFFFFF, np.uint32)
    grammar.masks([], mask_W)
    bits = np.unpackbits(mask_W.view(np.uint8), bitorder="little")[: tokenizer.vocab_size]
    rng = np.random.default_rng(1)
    written = rng.choice(np.nonzero(bits)[0], 100_000)
    assert not set(written.tolist()) & forbidden
    assert not bits[list(forbidden)].any() and bits.sum() == tokenizer.vocab_size - len(forbidden)


def test_the_table_is_what_templates_take(table: SyscallTable) -> None:
    assert [t["function"]["name"] for t in table.tools] == ["shop.price", "shop.order", "shop.hours"]
    assert json.dumps(table.tools)
