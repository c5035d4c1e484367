"""The loop inside the sandbox: reads cells, runs them, answers. Never imported by llmos; it is run as a text.

What: `python -I -S -c <this file> <folder of packages>...`. In: number, limit and length of the code (three integers of
    four bytes, big-endian), then the code; out: a length, then JSON: {"output", "value", "error", "figures",
    "interrupted"}.
Invariant: variables live as long as this process. Whatever a cell raises, prints or returns, there is one answer of
    bounded size, if this process still lives. None of this is relied upon for safety: a cell can do here whatever it
    likes. Only what is built in is imported before the first cell: all else doubles the time of a start.
Interface: `main()`. Standard library only.
"""

from __future__ import annotations

import _ast
import _signal as signal  # type: ignore[import-not-found]
import _struct as struct
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_FIGURES = 8
MAX_LINES = 12  # of a figure, that are told in words
MAX_NAMES = 20  # of columns or files, that an error tells
MAX_BASE64 = 10 << 20
OUTPUT = "/tmp/.output"
ONLY_AST = 0x400  # of `compile`, as `ast.PyCF_ONLY_AST`

USUAL = {  # names that need no import: small models forget it
    "np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot",
    **{name: name for name in ("collections", "csv", "datetime", "itertools", "json", "math", "os", "random", "re",
                               "statistics", "string", "time", "scipy", "sympy")},
}  # fmt: skip

sources: dict[str, str] = {}  # of cells, by name


class Usual:
    """A module under the name that everybody gives it; imported when something of it is first wanted."""

    def __init__(self, module: str) -> None:
        self.__dict__["_module"] = module

    def _real(self) -> object:
        import importlib

        return importlib.import_module(self.__dict__["_module"])

    def __getattr__(self, name: str) -> object:
        return getattr(self._real(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._real(), name, value)

    def __repr__(self) -> str:
        return repr(self._real())


def main() -> None:
    """Answer until stdin ends."""
    sys.path += sys.argv[1:]
    sys.argv = [""]
    ask, answer = os.dup(0), os.dup(1)
    output = os.open(OUTPUT, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for wanted, got in ((null, 0), (output, 1), (output, 2)):
        os.dup2(wanted, got)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    vars(module).update({name: Usual(known) for name, known in USUAL.items()})
    with os.fdopen(ask, "rb") as requests:
        while len(head := requests.read(12)) == 12:
            number, limit, size = struct.unpack(">III", head)
            code = requests.read(size).decode("utf-8", "surrogatepass")
            data = run(code, number, limit, vars(module), output)
            data = struct.pack(">I", len(data)) + data
            while data:
                data = data[os.write(answer, data) :]


def run(code: str, number: int, limit: int, space: dict[str, object], output: int) -> bytes:
    """One cell; the answer to it."""
    name, value, error, interrupted = "", None, None, False
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            name, found = evaluated(code, f"cell {number}", space)
            value = None if found is None else clipped(shown(found), limit)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException as raised:
        interrupted = isinstance(raised, KeyboardInterrupt)
        error = clipped(explained(raised), limit)
    figures: list[str] = []
    notes: list[str] = []
    try:
        figures, notes = drawn()
    except BaseException as raised:
        error = error or clipped(explained(raised), limit)
    if figures and value and value.startswith(("<", "[<")):  # what `plt.plot` returns; the picture says more
        value = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException as raised:
            error = error or clipped(explained(raised), limit)
    told = printed(output, limit)
    if name and value:  # a cell that prints nothing and ends by naming a result tells this
        value = None if told or figures or value.startswith("<") else f"{name} = {value}"
    if notes:
        told += "\n" * (bool(told) and not told.endswith("\n")) + clipped("\n".join(notes), limit)
    return (
        f'{{"output": {quoted(told)}, "value": {quoted(value)}, "error": {quoted(error)}, '
        f'"figures": [{", ".join(map(quoted, figures))}], "interrupted": {quoted(interrupted)}}}'
    ).encode()


def quoted(value: str | bool | None) -> str:
    """As JSON has it."""
    from _json import encode_basestring_ascii

    if isinstance(value, str):
        return encode_basestring_ascii(value)
    return "null" if value is None else "true" if value else "false"


def evaluated(code: str, name: str, space: dict[str, object]) -> tuple[str, object]:
    """Run a cell; the value of its last line, and the variable that this was given to; None where it has none."""
    sources[name] = code
    tree = compile(code, name, "exec", ONLY_AST, dont_inherit=True)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, _ast.Expr):
        tree.body.pop()
    exec(compile(tree, name, "exec", dont_inherit=True), space)  # noqa: S102 (this is what it is for)
    if isinstance(last, _ast.Assign | _ast.AugAssign | _ast.AnnAssign):
        target = last.targets[-1] if isinstance(last, _ast.Assign) else last.target
        return (target.id, space.get(target.id)) if isinstance(target, _ast.Name) else ("", None)
    if not isinstance(last, _ast.Expr):
        return "", None
    value = eval(compile(_ast.Expression(last.value), name, "eval", dont_inherit=True), space)  # noqa: S307
    space["_"] = value
    return "", value


def shown(value: object) -> str:
    """A value as it is told: as `repr` has it, numbers of numpy as plain ones."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]
    return repr(value)


def explained(error: BaseException) -> str:
    """A traceback of the cells' own lines."""
    import linecache
    import traceback

    for cell, code in sources.items():
        linecache.cache[cell] = (len(code), None, code.splitlines(True), cell)
    try:
        text = str(error)
    except BaseException:
        text = "(an error whose own text fails)"
    name = type(error).__name__
    if isinstance(error, SyntaxError) and str(error.filename).startswith("cell "):
        line = (error.text or "").rstrip("\n")
        mark = " " * max((error.offset or 1) - 1, 0) + "^"
        return f"{error.filename}, line {error.lineno}\n    {line}\n    {mark}\n{name}: {error.msg}"
    if isinstance(error, SystemExit):
        text = f"{text} (the session goes on)".strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("cell ")]
    if len(frames) > 8:
        frames = frames[:3] + frames[-5:]
    lines = ["Traceback (most recent call last):"]
    for frame in frames:
        inside = "" if frame.name == "<module>" else f", in {frame.name}"
        lines += [f"  {frame.filename}, line {frame.lineno}{inside}", f"    {frame.line}"]
    try:
        there = there_is(error)
    except BaseException:  # objects of the cell's own may do anything when they are looked at
        there = []
    return "\n".join([*lines, f"{name}: {text}" if text else name, *there])


def there_is(error: BaseException) -> list[str]:
    """What there is in place of what was not found: the columns of a table, files, names."""
    import difflib
    import traceback

    if isinstance(error, KeyError | AttributeError | NameError):
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            held = frame.f_locals.get("self")
            if isinstance(error, AttributeError) and error.obj is not held:
                continue
            for table in (held, vars(held).get("obj") if hasattr(held, "__dict__") else None):
                columns = getattr(table, "columns", None)
                if columns is not None and type(table).__module__.startswith("pandas"):
                    return [f"The columns are: {listed(columns)}."]
    if isinstance(error, FileNotFoundError):
        found = [f"{folder}/{one}"[2:] for folder, _, names in os.walk(".") for one in names]
        files = sorted(one for one in found if not f"/{one}".count("/."))
        return [f"The files are: {listed(files)}."] if files else ["There are no files."]
    if isinstance(error, NameError) and error.name:
        if error.name in sys.stdlib_module_names:
            return [f"{error.name} is a module that was not imported."]
        space = vars(sys.modules["__main__"])
        names = [n for n, held in space.items() if not n.startswith("_") and not isinstance(held, Usual)]
        if near := difflib.get_close_matches(error.name, names, 1):
            return [f"Did you mean {near[0]}?"]
    return []


def listed(names: Any) -> str:
    """Some names, and how many more there are."""
    some = [str(name) for _, name in zip(range(MAX_NAMES), names, strict=False)]
    more = len(names) - len(some)
    return ", ".join(some) + (f" and {more} more" if more else "")


def drawn() -> tuple[list[str], list[str]]:
    """The open figures as PNG in base64, and what is in each in words; they are closed."""
    import base64
    import io

    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return [], []
    found, notes = [], []
    try:
        for number in pyplot.get_fignums()[:MAX_FIGURES]:
            figure = pyplot.figure(number)
            picture = io.BytesIO()
            figure.savefig(picture, format="png")
            found.append(base64.b64encode(picture.getvalue()).decode())
            try:
                notes += [f"[figure: {described(axes)}]" for axes in figure.axes]
            except Exception as error:  # of axes that are drawn in ways of their own
                notes.append(f"[figure: not told in words, {type(error).__name__}]")
        if (size := sum(map(len, found))) > MAX_BASE64:
            raise ValueError(f"figures of {size} bytes are too large; draw them smaller")
    finally:
        pyplot.close("all")
    return found, notes


def described(axes: Any) -> str:
    """What can be seen in a plot, in words: who drew it may not see."""
    told = [axes.get_title()]
    across, dated = shown_on(axes.xaxis)
    for name, axis, kind in (("x", axes.xaxis, dated), ("y", axes.yaxis, "")):
        kind = "logarithmic" if axis.get_scale() == "log" else kind
        grid = "with grid" if any(line.get_visible() for line in axis.get_gridlines()) else ""
        told.append(f"{name} {axis.get_label_text()} {kind} {grid}")
    for line in axes.get_lines()[:MAX_LINES]:
        xs, ys = line.get_xdata(orig=False), line.get_ydata(orig=False)
        points = [
            (x, float(y)) for x, y in zip(xs, ys, strict=False) if y == y
        ]  # what is no number is not drawn
        name = "line" if str(line.get_label()).startswith("_") else f"line {line.get_label()!r}"
        if points and line.get_transform() == axes.get_xaxis_transform(which="grid"):
            told.append(f"vertical {name} at {across(points[0][0])}")
        elif points:
            first, last = (f"({across(x)}, {y:.6g})" for x, y in (points[0], points[-1]))
            told.append(f"{name} of {len(points)} points from {first} to {last}")
    others = {"bars or patches": axes.patches, "sets of points": axes.collections, "images": axes.images}
    told += [f"{len(found)} {what}" for what, found in others.items() if found]
    return "; ".join(" ".join(part.split()) for part in told if part)


def shown_on(axis: Any) -> tuple[Callable[[Any], str], str]:
    """How a number on an axis is told, and "dates" where it is told as one."""
    dates = sys.modules.get("matplotlib.dates")
    formatter = axis.get_major_formatter()
    if dates is not None and isinstance(formatter, dates.AutoDateFormatter | dates.ConciseDateFormatter):
        return lambda x: dates.num2date(x).isoformat().partition("T")[0], "dates"
    return lambda x: formatter(x) if axis.have_units() else f"{x:.6g}", ""


def printed(output: int, limit: int) -> str:
    """What was printed since the last cell, head and tail of it."""
    size = os.fstat(output).st_size
    if size <= limit:
        data = os.pread(output, size, 0)
    else:
        half = limit // 2
        gap = f"\n[{size - 2 * half} bytes left out]\n".encode()
        data = os.pread(output, half, 0) + gap + os.pread(output, half, size - half)
    os.ftruncate(output, 0)
    return data.decode("utf-8", "replace")


def clipped(text: str, limit: int) -> str:
    """Head and tail of a text, with what was left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


if __name__ == "__main__":
    main()
