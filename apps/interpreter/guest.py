"""The loop inside the sandbox: reads cells, runs them, answers. Never imported by llmos; it is run as a text.

What: `python -I -S -c <this file> <folder of packages>...`. In: number, limit and length of the code (three integers of
    four bytes, big-endian), then the code; out: a length, then JSON: {"output", "value", "error", "figures",
    "interrupted"}.
Invariant: variables live as long as this process. Whatever a cell raises, prints or returns, there is one answer of
    bounded size, if this process still lives. None of this is relied upon for safety: a cell can do here whatever it
    likes. Only what is built in is imported before the first cell: all else doubles the time of a start.
Interface: `main()`. Standard library only.
"""

import _ast
import _signal as signal  # type: ignore[import-not-found]
import _struct as struct
import os
import sys

MAX_FIGURES = 8
MAX_BASE64 = 10 << 20
OUTPUT = "/tmp/.output"
ONLY_AST = 0x400  # of `compile`, as `ast.PyCF_ONLY_AST`

sources: dict[str, str] = {}  # of cells, by name


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
    value, error, interrupted = None, None, False
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            found = evaluated(code, f"cell {number}", space)
            value = None if found is None else clipped(shown(found), limit)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException as raised:
        interrupted = isinstance(raised, KeyboardInterrupt)
        error = clipped(explained(raised), limit)
    figures = []
    try:
        figures = drawn()
    except BaseException as raised:
        error = error or clipped(explained(raised), limit)
    if figures and value and value.startswith(("<", "[<")):  # what `plt.plot` returns; the picture says more
        value = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException as raised:
            error = error or clipped(explained(raised), limit)
    return (
        f'{{"output": {quoted(printed(output, limit))}, "value": {quoted(value)}, "error": {quoted(error)}, '
        f'"figures": [{", ".join(map(quoted, figures))}], "interrupted": {quoted(interrupted)}}}'
    ).encode()


def quoted(value: str | bool | None) -> str:
    """As JSON has it."""
    from _json import encode_basestring_ascii

    if isinstance(value, str):
        return encode_basestring_ascii(value)
    return "null" if value is None else "true" if value else "false"


def evaluated(code: str, name: str, space: dict[str, object]) -> object:
    """Run a cell; the value of its last line, None where that is no expression."""
    sources[name] = code
    tree = compile(code, name, "exec", ONLY_AST, dont_inherit=True)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, _ast.Expr):
        tree.body.pop()
    exec(compile(tree, name, "exec", dont_inherit=True), space)  # noqa: S102 (this is what it is for)
    if not isinstance(last, _ast.Expr):
        return None
    value = eval(compile(_ast.Expression(last.value), name, "eval", dont_inherit=True), space)  # noqa: S307
    space["_"] = value
    return value


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
    return "\n".join([*lines, f"{name}: {text}" if text else name])


def drawn() -> list[str]:
    """The open figures as PNG in base64; they are closed."""
    import base64
    import io

    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    found = []
    try:
        for number in pyplot.get_fignums()[:MAX_FIGURES]:
            picture = io.BytesIO()
            pyplot.figure(number).savefig(picture, format="png")
            found.append(base64.b64encode(picture.getvalue()).decode())
        if (size := sum(map(len, found))) > MAX_BASE64:
            raise ValueError(f"figures of {size} bytes are too large; draw them smaller")
    finally:
        pyplot.close("all")
    return found


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
