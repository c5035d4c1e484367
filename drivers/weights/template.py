"""Chat templates: from messages to text whose every character's origin is known.

What: a template is rendered, and its output cut into `Piece`s: what the template's author wrote as a literal
    (`control`: its tokens may be control tokens), what came from a message, and what came from elsewhere
    (tool descriptions). Content is never looked at for control tokens, so nothing in it can become one.
Invariant: a character is `control` only if it stood as a literal in the template (or is a message's role,
    the date, or the model's own begin and end token). Everything else is data, whatever the template did
    with it. The pieces' texts, joined, are exactly what a plain render gives.
Interface: `ChatTemplate(source, ...)`, `.render(messages, tools=…, add_generation_prompt=…)` -> list[Piece];
    `from_weights(weights)`.

How. Literals in output position, and contents, are put between marks: private-use characters with 128 random
bits drawn for each render, so that no text can hold them. They carry no case and are no blanks, so they
survive what templates do (`trim`, `upper`, `split`, `tojson`). Blanks at the ends of a content stay outside
of its marks, so that `trim` finds them. Between two literals lies data; the marks in it say whose. A
template that tests or cuts literals is rendered in gentler ways until marked and plain render agree; where
none does, it is refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from llmos.abi.errors import TemplateError
from llmos.abi.limits import MAX_TEMPLATE, TEMPLATE_SECONDS
from llmos.drivers.weights.sandbox import Budget, apply, guard, make_environment, spending

if TYPE_CHECKING:
    from llmos.drivers.weights.weights import Weights

_MAX_DEPTH = 32  # of lists and mappings in a message
_UNITS, _UNITS_A_CHARACTER = (
    1 << 22,
    32,
)  # what a render may cost: a base, and for each character that is given

# What a template may do wrong while it runs; all of it is the template's fault.
_FAILURES = (
    jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError,
    RuntimeError, SyntaxError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered template.

    `control`: written by the template's author. Else it is data, of message number `message`, or of none of
    them (tools, or text that the template changed beyond recognition: trust it no more than the least given).
    """

    text: str
    control: bool
    message: int | None = None


class _Marks:
    """One render's marks; see `_GENTLER` for what is marked."""

    def __init__(self, *, literals: bool, contents: bool, constants: bool, outside: bool) -> None:
        self.literals, self.contents = literals, contents
        self.constants, self.outside = constants, outside
        salt = "".join(chr(0xF0000 + secrets.randbelow(0xFFFE)) for _ in range(8))
        self._literal = (salt + "\ue001", salt + "\ue002")
        self._content = (salt + "\ue003", salt + "\ue004")
        self._pattern = re.compile(f"{salt}(?:([\ue001\ue002])|([\ue003\ue004])([\ue010-\ue019]+)\ue005)")

    def literal(self, text: str) -> str:
        """`text` as the template's own."""
        if not text or not self.literals:
            return text
        before, core, after = _around(text) if self.outside else ("", text, "")
        return before + self._literal[0] + core + self._literal[1] + after if core else text

    def content(self, text: str, message: int) -> str:
        """`text` as that of message number `message`."""
        before, core, after = _around(text)
        if not core or not self.contents:
            return text
        number = "".join(chr(0xE010 + int(d)) for d in str(message)) + "\ue005"
        return before + self._content[0] + number + core + self._content[1] + number + after

    def cut(self, text: str) -> Iterator[tuple[str, bool, int | None]]:
        """A marked render -> runs of (text, in a literal, message)."""
        at, literal = 0, False
        run: list[tuple[str, int | None]] = []  # data between two literals, with the marks found in it
        inside: int | None = None
        for mark in self._pattern.finditer(text):
            part, at = text[at : mark.start()], mark.end()
            if literal and mark[1] == "\ue002":
                yield part, True, None
                literal = False
                continue
            run.append((part, inside))
            if mark[1] == "\ue001":
                yield from _data(run)
                run, inside, literal = [], None, True
            elif mark[2]:
                message = int("".join(chr(ord(d) - 0xE010 + 48) for d in mark[3]))
                run.append(("", message))
                inside = message if mark[2] == "\ue003" else None
        yield from _data([*run, (text[at:], inside)])


def _data(run: list[tuple[str, int | None]]) -> Iterator[tuple[str, bool, int | None]]:
    """Data between two literals: where one message alone marked it, all of it is that message's."""
    owners = {message for _, message in run if message is not None}
    if len(owners) == 1:
        yield "".join(part for part, _ in run), False, owners.pop()
    else:
        yield from ((part, False, message) for part, message in run)


def _around(text: str) -> tuple[str, str, str]:
    """Leading blanks, the rest, trailing blanks."""
    core = text.strip()
    start = text.find(core)
    return text[:start], core, text[start + len(core) :]


_marks: ContextVar[_Marks] = ContextVar("marks")
_PLAIN = partial(_Marks, literals=False, contents=False, constants=False, outside=False)
# Ways to mark, from the fullest: all literals; with their blanks outside, for templates that trim what they
# built; without those in assignments, loops and arguments, for templates that compare such a value later; and
# the same without contents, for templates that cut or measure them (data is then nobody's in particular).
_GENTLER = tuple(
    partial(_Marks, literals=True, contents=contents, constants=constants, outside=outside)
    for contents in (True, False)
    for constants in (True, False)
    for outside in (False, True)
)


def _literal(text: str) -> str:
    return _marks.get().literal(text)


def _constant(text: str) -> str:
    marks = _marks.get()
    return marks.literal(text) if marks.constants else text


class _Literals(NodeTransformer):
    """Sends every literal that can reach the output through `_literal` or `_constant`.

    Not those that are only looked at: operands of comparisons and tests, arguments of filters and of methods.
    """

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [self.mark(child, "_literal") for child in node.nodes]
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        node.node = self.mark(node.node, "_constant")
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node.iter = self.mark(node.iter, "_constant")
        return self.generic_visit(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        node.defaults = [self.mark(child, "_constant") for child in node.defaults]
        return self.generic_visit(node)

    def mark(self, node: Any, kind: str) -> Any:
        """`node`, an expression, with its literals marked."""
        mark = partial(self.mark, kind=kind)
        match node:
            case nodes.TemplateData(data=text):
                return apply(kind, nodes.Const(text, lineno=node.lineno))
            case nodes.Const(value=str()):
                return apply(kind, node)
            case nodes.Add() | nodes.Or() | nodes.And():
                node.left, node.right = mark(node.left), mark(node.right)
            case nodes.Concat():
                node.nodes = [mark(child) for child in node.nodes]
            case nodes.CondExpr():
                node.expr1, node.expr2 = mark(node.expr1), node.expr2 and mark(node.expr2)
            case nodes.List() | nodes.Tuple():
                node.items = [mark(child) for child in node.items]
            case nodes.Dict():
                for pair in node.items:
                    pair.value = mark(pair.value)
            case nodes.Filter(name=name):
                node.node = node.node and mark(node.node)
                if name in ("default", "d", "join"):
                    node.args = [mark(child) for child in node.args]
            case nodes.Getattr() | nodes.Getitem():
                node.node = mark(node.node)
            case nodes.Call(node=callee):
                if isinstance(callee, nodes.Name):  # a macro, or namespace()
                    node.args = [self.mark(child, "_constant") for child in node.args]
                    for keyword in node.kwargs:
                        keyword.value = self.mark(keyword.value, "_constant")
                else:
                    node.node = mark(callee)
        return node


class ChatTemplate:
    """A compiled template; `tokens` are variables that templates expect, as `bos_token`. Thread-safe."""

    def __init__(self, source: str, tokens: Mapping[str, str] | None = None) -> None:
        if len(source) > MAX_TEMPLATE:
            raise TemplateError(f"the chat template has {len(source)} characters, more than {MAX_TEMPLATE}")
        self.source = source
        self._tokens = dict(tokens or {})
        env = make_environment()
        env.filters |= {"_literal": _literal, "_constant": _constant}
        env.globals["strftime_now"] = lambda form: _literal(datetime.now().astimezone().strftime(form))
        try:
            tree = guard(_Literals().visit(env.parse(source)))
            self._template = env.template_class.from_code(env, env.compile(tree), env.globals)
        except _FAILURES as e:
            raise _broken("cannot be compiled", e) from e

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[Piece]:
        """Write a conversation down as the model expects it.

        Args:
            messages: `role`, `content`, `tool_calls` and what else the template knows, as plain JSON values.
            tools: descriptions of the functions on offer, for templates that have a place for them.
            add_generation_prompt: end with the opening of the assistant's answer.

        Raises:
            TemplateError: the template fails, refuses the conversation, runs too long, or changes literals
                and contents in a way that cannot be followed.
        """
        values = {"tools": _plain(tools), "add_generation_prompt": add_generation_prompt}
        given = [_plain(dict(m)) for m in messages]
        size = len(str(given)) + len(str(tools))
        plain = self._run(_PLAIN(), given, values, size)
        roles = {str(m.get("role")) for m in given}
        for way in _GENTLER:
            marks = way()
            try:
                marked = self._run(marks, given, values, size)
            except TemplateError:
                continue  # the marks themselves were in its way
            pieces = _pieces(marks.cut(marked), {role for role in roles if role.isidentifier()})
            if "".join(piece.text for piece in pieces) == plain:
                return pieces
        raise TemplateError(
            "the chat template changes texts in a way that cannot be followed",
            why="what it wrote itself could not be told from what it was given",
            do="use another file of the model, or `--raw`",
        )

    def _run(self, marks: _Marks, given: list[Any], values: dict[str, Any], size: int) -> str:
        messages = [_marked(message, i, marks) for i, message in enumerate(given)]
        tokens = {name: marks.literal(text) for name, text in self._tokens.items()}
        budget = Budget(_UNITS + _UNITS_A_CHARACTER * size, TEMPLATE_SECONDS)
        out: list[str] = []
        token = _marks.set(marks)
        try:
            with spending(budget):
                for part in self._template.generate(messages=messages, **values, **tokens):
                    budget.pay(len(part))
                    out.append(part)
        except _FAILURES as e:
            raise _broken("cannot be rendered", e) from e
        finally:
            _marks.reset(token)
        return "".join(out)


def _broken(what: str, e: BaseException) -> TemplateError:
    where = f"line {e.lineno}: " if isinstance(e, jinja2.TemplateSyntaxError) else ""
    why = where + (str(e).splitlines() or [""])[0][:300]
    return TemplateError(
        f"the chat template {what}",
        why=why or type(e).__name__,
        do="use another file of the model, or `--raw`",
    )


def _plain(value: object, depth: int = 0) -> Any:
    """A copy of a JSON value: no object of another kind gets into the sandbox."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(key): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [_plain(item, depth + 1) for item in value]
    raise TemplateError(
        f"a message holds a {type(value).__name__}", why="messages are plain, finite JSON values"
    )


def _marked(message: dict[str, Any], number: int, marks: _Marks) -> dict[str, Any]:
    """The message with its free text marked: contents, their parts, reasoning, arguments of calls."""

    def everywhere(value: Any) -> Any:
        match value:
            case str():
                return marks.content(value, number)
            case list():
                return [everywhere(item) for item in value]
            case dict():
                return {key: everywhere(item) for key, item in value.items()}
        return value

    def within(value: Any, keys: tuple[str, ...]) -> Any:
        match value:
            case list():
                return [within(item, keys) for item in value]
            case dict():
                return {k: everywhere(v) if k in keys else within(v, keys) for k, v in value.items()}
        return value

    out = dict(message)
    for key in ("content", "reasoning_content", "thinking"):
        value = out.get(key)
        if value is not None:
            out[key] = everywhere(value) if isinstance(value, str) else within(value, ("text",))
    if "tool_calls" in out:
        out["tool_calls"] = within(out["tool_calls"], ("arguments",))
    return out


def _pieces(runs: Iterator[tuple[str, bool, int | None]], roles: set[str]) -> list[Piece]:
    """Join neighbours of one origin. A bare role name counts as the template's, as do bare blanks."""
    out: list[Piece] = []
    for text, control, message in runs:
        if not control and message is None:
            control = text in roles or not text.strip()
        if out and (out[-1].control, out[-1].message) == (control, message):
            out[-1] = Piece(out[-1].text + text, control, message)
        elif text:
            out.append(Piece(text, control, message))
    return out


def from_weights(weights: Weights) -> ChatTemplate:
    """The chat template that a model's files carry.

    Raises:
        TemplateError: they carry none.
    """
    if weights.source == "gguf":
        source, tokens = _of_gguf(weights.metadata)
    else:
        from llmos.drivers.weights.json_tokenizer import chat_template

        source, tokens = chat_template(weights.files.folder)
    if not source:
        raise TemplateError(
            f"{weights.files.name} has no chat template",
            why="it is a base model, which continues text and does not converse",
            do="use an instruction-tuned model, or `--raw`",
        )
    return ChatTemplate(source, tokens)


def _of_gguf(metadata: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    listed = metadata.get("tokenizer.ggml.tokens", ())
    tokens = {}
    for name, key in (
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
    ):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(listed):
            tokens[name] = listed[number]
    source = metadata.get("tokenizer.chat_template")
    return source if isinstance(source, str) else "", tokens
