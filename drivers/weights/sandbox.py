"""jinja2 for templates that came with a file from the internet.

What: an environment in which a chat template can do what real ones do, and little else.
Invariant: a render ends within its `Budget` of steps, characters and seconds, whatever the template: every
    loop turn, call, concatenation, repetition, join and replacement is paid for before it happens.
    Attributes and methods are a short list of harmless ones; nothing reaches Python's own objects.
Interface: `make_environment()`; `Budget`, set for a render by `spending(budget)`; `guard(ast)` rewrites a
    parsed template so that its loops and `~` are paid for too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from llmos.abi.errors import TemplateError

_PLAIN_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items",
    "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round",
    "safe", "select", "selectattr", "sort", "string", "title", "trim", "unique", "upper",
)  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        {
            "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower",
            "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
            "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
            "startswith", "strip", "title", "upper",
        }
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    int: frozenset(),
    float: frozenset(),
}  # fmt: skip
_MAX_INTEGER_BITS = 256
_MAX_INDENT = 16


@dataclass(slots=True)
class Budget:
    """What one render may cost: `units` are characters made and loop turns or calls taken."""

    units: int
    seconds: float
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + self.seconds

    def pay(self, units: int) -> None:
        """Raises TemplateError when the budget, or the time, is used up."""
        self.units -= units
        if self.units < 0 or time.monotonic() > self._ends:
            raise TemplateError(
                "the chat template does not come to an end",
                why="it used up the time or the text that a render may cost",
                do="use another file of the model",
            )


_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Charge renders within to `budget`."""
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


def _pay(units: int) -> None:
    _budget.get().pay(units)


def _concat(parts: Iterable[Any]) -> str:
    texts = [str(part) for part in parts]
    _pay(1 + sum(map(len, texts)))
    return "".join(texts)


class Sandbox(ImmutableSandboxedEnvironment):
    """See the module."""

    concat = staticmethod(_concat)  # how compiled templates join what a macro or a block wrote
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may see `obj.attr`."""
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call in a template, paid for by what it can make."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        units = 1
        if isinstance(owner, str):
            units += len(owner)
            if name == "join" and args:
                args = (items := [str(a) for a in _counted(args[0])], *args[1:])
                units += sum(map(len, items)) + len(owner) * len(items)
            if name == "replace" and len(args) >= 2:
                units += _replaced(owner, str(args[0]), str(args[1]))
        _pay(units)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator in a template, refused where its result could be huge."""
        match operator, left, right:
            case "+", _, _:
                _pay(1 + sum(len(side) for side in (left, right) if hasattr(side, "__len__")))
            case "*", int(), int():
                _bits(left.bit_length() + right.bit_length())
            case "*", _, _:
                sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
                if hasattr(sized, "__len__") and isinstance(times, int):
                    _pay(1 + len(sized) * max(0, times))
            case "**", int(), int():
                _bits(left.bit_length() * max(1, right))
            case "%", str(), _:
                raise TemplateError(
                    "the chat template formats text with %", why="it could make text of any size"
                )
        return super().call_binop(context, operator, left, right)


def _bits(bits: int) -> None:
    if bits > _MAX_INTEGER_BITS:
        raise TemplateError("the chat template computes with huge numbers")


def _replaced(text: str, old: str, new: str) -> int:
    return text.count(old) * len(new)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    """The loop turns of `items`, each paid for."""
    for item in items:
        _pay(1)
        yield item


def _join(value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        value = [item[attribute] for item in _counted(value)]
    texts = [str(item) for item in _counted(value)]
    _pay(sum(map(len, texts)) + len(d) * len(texts))
    return d.join(texts)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(value)
    _pay(1 + len(text) + _replaced(text, old, new))
    return text.replace(old, new, count)


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    prefix = " " * min(width, _MAX_INDENT) if isinstance(width, int) else width[:_MAX_INDENT]
    lines = str(value).splitlines()
    _pay(sum(map(len, lines)) + len(prefix) * len(lines))
    return "\n".join(
        prefix + line if (first or i) and (blank or line) else line for i, line in enumerate(lines)
    )


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face's: plain JSON, not the HTML-escaped kind that jinja2 brings."""
    if indent is not None:
        indent = min(indent, _MAX_INDENT)
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    _pay(len(text))
    return text


def _raise(message: object) -> None:
    raise TemplateError("the chat template refuses this conversation", why=str(message)[:500])


class _Generation(Extension):
    """`{% generation %}` marks assistant text for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def make_environment() -> Sandbox:
    """A fresh environment, set as Hugging Face sets its own."""
    # No constant folding: it would run filters at compile time, outside of any budget.
    env = Sandbox(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[loopcontrols, _Generation]
    )
    ours: dict[str, Callable[..., Any]] = {
        "join": _join, "replace": _replace, "indent": _indent, "tojson": _tojson, "_counted": _counted,
        "_concat": _concat,
    }  # fmt: skip
    env.filters = {name: FILTERS[name] for name in _PLAIN_FILTERS} | ours
    env.globals = {name: env.globals[name] for name in ("range", "dict", "namespace")} | {
        "raise_exception": _raise
    }
    return env


class _Guard(NodeTransformer):
    """Loops count their turns, and `~` pays for what it joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = apply("_counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return apply("_concat", nodes.List(node.nodes, lineno=node.lineno))


def apply(name: str, node: nodes.Node) -> nodes.Filter:
    """`node | name` as a syntax tree."""
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


def guard(tree: nodes.Template) -> nodes.Template:
    """Make a parsed template pay for its loops and concatenations."""
    guarded: nodes.Template = _Guard().visit(tree)
    return guarded
