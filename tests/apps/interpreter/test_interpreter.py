"""The interpreter: variables stay, results are told, files go in and out, and what is lost is said to be lost."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from llmos.abi.app import Call, Image, Text
from llmos.abi.errors import AppError, ConfigError
from llmos.abi.events import Result
from llmos.abi.manifest import Manifest
from llmos.abi.settings import VARIABLE
from llmos.apps.interpreter import CellFailed, Interpreter
from llmos.drivers.sandbox import SandboxEnded
from llmos.testing import call

_keys = itertools.count()
Run = Callable[..., str]


@dataclass
class Caller:
    """Who calls, in the place of the kernel."""

    volume: Path | None
    key: str = field(default_factory=lambda: f"key-{next(_keys)}")
    cancelled: bool = False


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "7"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    monkeypatch.setenv(VARIABLE, '{"interpreter": {"seconds": 20, "output": 400, "disk": "32MiB"}}')
    made = Interpreter()
    yield made
    made.close()


@pytest.fixture
def run(app: Interpreter, volume: Path) -> Run:
    """Runs a cell; the text of its result."""

    def told(code: str, caller: Caller | None = None) -> str:
        try:
            parts = app.run(code, cast(Call, caller or Caller(volume)))
        except CellFailed as error:
            return error.what
        return "".join(part.text for part in parts if isinstance(part, Text))

    return told


def test_its_declaration() -> None:
    manifest = Manifest.of(Interpreter)
    assert manifest.stateful and not manifest.pure
    assert {s.name: (s.effect, s.returns) for s in manifest.syscalls} == {
        "interpreter.run": ("execute", "untrusted"),
        "interpreter.reset": ("execute", "untrusted"),
    }


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 + 1", "2"),
        ("x = 1", "x = 1"),
        ("x = [1]\nx += [2]", "x = [1, 2]"),
        ("x: int = 5", "x = 5"),
        ("x = 1\nprint('a')\nx = 2", "a"),
        ("import os", "Done; nothing was printed."),
        ("x, y = 1, 2", "Done; nothing was printed."),
        ("x = object()", "Done; nothing was printed."),
        ("None", "Done; nothing was printed."),
        ("", "Done; nothing was printed."),
        ("print('a'); print('b', end='')", "a\nb"),
        ("print('a')\n'b'", "a\n'b'"),
        ("import sys; print('e', file=sys.stderr)", "e"),
        ("import os; os.system('echo from a child') and None", "from a child"),
        ("import numpy; numpy.float64(2.5)", "2.5"),
        ("import numpy; numpy.arange(3)", "array([0, 1, 2])"),
        ("def f():\n    return 'ä'\nf()", "'ä'"),
        ("for i in range(2): i", "Done; nothing was printed."),
        ("10 ** 5000", "ValueError: Exceeds the limit"),
        ("class Bad:\n    def __repr__(self): raise KeyError('r')\nBad()", "KeyError: 'r'"),
        ("import asyncio\nasync def f(): return 5\nasyncio.run(f())", "5"),
        ("import multiprocessing as m\np = m.get_context('fork').Process(target=print, args=('child',))\n"
         "p.start(); p.join()\np.exitcode", "0"),
    ],
)  # fmt: skip
def test_what_a_cell_tells(run: Run, code: str, told: str) -> None:
    assert told in run(code)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("pd.read_csv('fruit.csv')['prize'].sum()", "KeyError: 'prize'\nThe columns are: name, price."),
        ("pd.read_csv('fruit.csv').prize", "The columns are: name, price."),
        ("pd.read_csv('fruit.csv').groupby('name')['prize'].sum()", "The columns are: name, price."),
        ("pd.read_csv('fruit.csv').sort_values('prize')", "The columns are: name, price."),
        ("open('fruits.csv')", "No such file or directory: 'fruits.csv'\nThe files are: fruit.csv."),
        ("print(fruits)", "Did you mean fruit?"),
        ("zlib.crc32(b'')", "zlib is a module that was not imported."),
        ("{}['a']", "KeyError: 'a'"),
    ],
)
def test_who_does_not_find_something_is_told_what_there_is(
    run: Run, volume: Path, code: str, told: str
) -> None:
    (volume / "fruit.csv").write_text("name,price\napple,1.5\n")
    run("fruit = 1")
    assert run(code).endswith(told)


def test_a_cell_that_fails_is_an_error_with_all_that_it_told(app: Interpreter, volume: Path) -> None:
    caller = Caller(volume)
    with pytest.raises(CellFailed, match=r"(?s)^so far\n.*line 2.*\[saved: kept\]") as failed:
        app.run("open('kept', 'w').write('1'); print('so far')\n1 / 0", cast(Call, caller))
    with pytest.raises(CellFailed) as again:
        app.ran(caller.key, cast(Call, caller))
    assert str(again.value) == str(failed.value), "and is one as well where its result was lost"


def test_variables_stay(run: Run) -> None:
    run("import math\nx = 20\ndef double(n): return 2 * n")
    assert run("double(x) + math.floor(2.5)") == "42"
    assert run("_") == "42"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("x = 1\ny = x / 0\n", "cell 1, line 2\n    y = x / 0\nZeroDivisionError: division by zero"),
        (
            "def f(n):\n    return [][n]\n\nf(1)",
            "cell 1, line 4\n    f(1)\n  cell 1, line 2, in f\n    return [][n]",
        ),
        ("a = 1\nb = (2", "cell 1, line 2\n    b = (2\n        ^\nSyntaxError: '(' was never closed"),
        ("import numpy\nnumpy.zeros((2, 2)) @ numpy.zeros(3)", "cell 1, line 2"),
        ("raise SystemExit(3)", "SystemExit: 3 (the session goes on)"),
        ("import json\njson.loads('{')", "cell 1, line 2\n    json.loads('{')\nJSONDecodeError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("x = '\0'", "SyntaxError: source code string cannot contain null bytes"),
        ("x = bytearray(10 ** 10)", "MemoryError"),
    ],
)
def test_errors_name_the_line(run: Run, code: str, line: str) -> None:
    told = run(code)
    assert line in told and "/usr" not in told and "site-packages" not in told
    assert run("1") == "1", "and the session goes on"


def test_long_output_keeps_head_and_tail(run: Run) -> None:
    told = run("print('a' * 10_000 + 'z')")
    assert told.startswith("aaa") and told.endswith("z") and "[9602 bytes left out]" in told
    told = run("'b' * 10_000")
    assert "characters left out]" in told and len(told) < 500


def test_files_go_in_and_out(run: Run, volume: Path) -> None:
    (volume / "data.csv").write_text("name,price\napple,1.5\npear,2.5\n")
    assert run("import pandas\npandas.read_csv('data.csv').price.mean()") == "2.0"
    told = run("pandas.read_csv('data.csv').describe().to_csv('out/stats.csv')")
    assert "OSError" in told
    told = run("import os\nos.mkdir('out')\npandas.read_csv('data.csv').to_csv('out/copy.csv', index=False)")
    assert told == "[saved: out/copy.csv]"
    assert (volume / "out/copy.csv").read_text() == (volume / "data.csv").read_text()
    (volume / "data.csv").write_text("name,price\nfig,9\n")
    assert run("pandas.read_csv('data.csv').price[0]") == "9"


def test_plots_are_pictures(app: Interpreter, volume: Path) -> None:
    code = "import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.figure()\n    plt.plot([1, n])\nplt.show()"
    text, *pictures = app.run(code, cast(Call, Caller(volume)))
    assert text == Text(
        "[figure: x; y; line of 2 points from (0, 1) to (1, 1)]\n"
        "[figure: x; y; line of 2 points from (0, 1) to (1, 2)]"
    )
    assert [p.mime for p in pictures if isinstance(p, Image)] == ["image/png"] * 2 and pictures[
        0
    ] != pictures[1]
    text, *pictures = app.run("plt.plot([3])", cast(Call, Caller(volume)))
    assert text == Text("[figure: x; y; line of 1 points from (0, 3) to (0, 3)]")
    assert len(pictures) == 1, "what is shown is closed, what plot returns is noise"
    with pytest.raises(CellFailed, match="ValueError"):
        app.run(r"plt.title(r'$\no$'); plt.plot([1])", cast(Call, Caller(volume)))
    text, *pictures = app.run("plt.imsave('own.png', [[0, 1]])", cast(Call, Caller(volume)))
    assert text == Text("[saved: own.png]") and not pictures


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("plt.plot([1, 2], [3, float('nan')], label='a'); plt.yscale('log'); plt.grid(); plt.xlabel('k')",
         "[figure: x k with grid; y logarithmic with grid; line 'a' of 1 points from (1, 3) to (1, 3)]"),
        ("d = pd.to_datetime(['2020-01-01', '2021-06-01']); plt.plot(d, [1, 2]); plt.axvline(d[1]); plt.title('T')",
         "[figure: T; x dates; y; line of 2 points from (2020-01-01, 1) to (2021-06-01, 2); "
         "vertical line at 2021-06-01]"),
        ("plt.bar([1, 2], [3, 4])", "[figure: x; y; 2 bars or patches]"),
        ("plt.figure().add_subplot(projection='polar').plot([0, 1], [1, 1])", "[figure: "),
    ],
)  # fmt: skip
def test_a_plot_is_told_in_words(app: Interpreter, volume: Path, code: str, told: str) -> None:
    text, picture = app.run(code + ";None", cast(Call, Caller(volume)))
    assert isinstance(picture, Image) and told in cast(Text, text).text


def test_the_usual_names_need_no_import(run: Run) -> None:
    assert run("def f(): return np.arange(3).sum()\nfloat(f())") == "3.0"
    assert run("pd.DataFrame({'a': [1, 2]}).a.sum()") == "3"
    assert run("plt.rcParams['font.size'] = 11; np = 5; np") == "5", "they are names like any other"
    assert (
        run("math.sqrt(16), re.findall('[0-9]', 'a1b2'), json.dumps([os.sep])")
        == "(4.0, ['1', '2'], '[\"/\"]')"
    )
    assert run("from datetime import datetime\ndatetime(2026, 1, 1).year") == "2026"
    assert "AttributeError: module 'pandas' has no attribute 'nothing'" in run("pd.nothing")


STUBBORN = """
import time
open("kept2", "w").write("1")
while True:
    try: time.sleep(100)
    except BaseException: pass
"""


def test_a_cell_that_takes_too_long_is_stopped(
    monkeypatch: pytest.MonkeyPatch, app: Interpreter, volume: Path
) -> None:
    monkeypatch.setenv(VARIABLE, '{"interpreter": {"seconds": 0.5}}')
    quick = Interpreter()
    try:
        run = lambda code: quick.run(code, cast(Call, Caller(volume)))[0]  # noqa: E731
        with pytest.raises(CellFailed) as stopped:
            run("x = 5\nopen('kept', 'w').write('1')\nwhile True: pass")
        assert stopped.value.what == "Stopped after 0.5 s; variables are kept.\n[saved: kept]"
        assert run("x") == Text("5")
        with pytest.raises(SandboxEnded, match=r"variables are gone.*interrupted, and ran on"):
            run(STUBBORN)
        assert (volume / "kept2").read_text() == "1", "files are as they were"
        with pytest.raises(CellFailed, match="NameError"):
            run("x")
    finally:
        quick.close()


def test_who_gives_up_stops_the_cell(app: Interpreter, volume: Path, run: Run) -> None:
    run("x = 5")
    caller = Caller(volume)
    timer = threading.Timer(0.3, lambda: setattr(caller, "cancelled", True))
    timer.start()
    began = time.monotonic()
    run("import time\ntime.sleep(15)", caller)
    timer.join()
    assert time.monotonic() - began < 14
    assert run("x") == "5", "the cell stopped, the session did not"


@pytest.mark.parametrize(
    "end",
    ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)", "import ctypes; ctypes.string_at(0)"],
)
def test_a_session_that_ends_is_told_and_begun_again(run: Run, volume: Path, end: str) -> None:
    run("x = 5; open('f', 'w').write('1')")
    with pytest.raises(SandboxEnded, match=r"all its variables are gone.*begin again, files are kept"):
        run(end)
    assert "NameError" in run("x") and run("open('f').read()") == "'1'"


def test_after_a_crash_of_the_app_the_loss_is_told(run: Run, app: Interpreter, volume: Path) -> None:
    run("x = 5")
    app.close()  # its process is gone; another one takes its place, and knows only what lies in the volume
    again = Interpreter()
    try:
        told = cast(Text, again.run("1", cast(Call, Caller(volume)))[0]).text
        assert told.startswith("[This is a new Python session") and "1 cells" in told and told.endswith("\n1")
        told = cast(Text, again.run("2", cast(Call, Caller(volume)))[0]).text
        assert told == "2", "once is enough"
    finally:
        again.close()


def test_a_reset_forgets(app: Interpreter, volume: Path, run: Run) -> None:
    run("x = 5; open('f', 'w').write('1')")
    assert "Files are kept" in app.reset(cast(Call, Caller(volume)))
    assert "NameError" in run("x") and run("open('f').read()") == "'1'"


def test_what_came_of_a_call_whose_result_was_lost(app: Interpreter, volume: Path, run: Run) -> None:
    caller = Caller(volume)
    assert app.ran("another", cast(Call, caller)) == []
    run("print(6 * 7)\nimport matplotlib.pyplot as plt; plt.plot([1]); None", caller)
    text, picture = app.ran(caller.key, cast(Call, caller))
    assert cast(Text, text).text.startswith("42\n[figure: ") and isinstance(picture, Image)
    (volume / ".llmos-interpreter").write_text('{"key": "k", "cells": 3}')  # it began, and no more is known
    (told,) = app.ran("k", cast(Call, caller))
    assert isinstance(told, Text) and "variables are gone" in told.text and "run it again" in told.text
    (volume / ".llmos-interpreter").write_text("no JSON")
    assert app.ran("k", cast(Call, caller)) == []


def test_settings_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"interpreter": {"memroy": "1GiB"}}')
    with pytest.raises(ConfigError, match=r"apps.interpreter.memroy: an unknown key.*'memory'"):
        Interpreter()
    monkeypatch.setenv(VARIABLE, '{"interpreter": {"memory": "1KiB"}}')
    with pytest.raises(ConfigError, match=r"apps.interpreter.memory: .*greater"):
        Interpreter()


def test_without_a_folder_there_is_no_session(app: Interpreter) -> None:
    with pytest.raises(AppError, match="no folder"):
        app.run("1", cast(Call, Caller(None)))


# --- in a kernel ---


def _results(process: Any, question: str) -> list[str]:
    return [event.text for event in process.ask(question) if isinstance(event, Result)]


def test_agents_have_sessions_of_their_own_and_settings(scripted_kernel: Callable[..., Any]) -> None:
    def script(window: str) -> str:
        question = window.rpartition("CODE:")[2]
        return "Well." if '"code"' in question else call("interpreter.run", code=question.partition("!")[0])

    kernel = scripted_kernel(script, apps={"interpreter": {"seconds": 1}})
    one, two = (kernel.spawn(grants=["interpreter"]) for _ in range(2))
    assert _results(one, "CODE:x = 1!") == ["x = 1"]
    assert "NameError" in _results(two, "CODE:x!")[0]
    assert _results(one, "CODE:x + 1!") == ["2"]
    assert "Stopped after 1 s" in _results(one, "CODE:while True: pass!")[0]
    for server in kernel.apps.ps():
        os.kill(server.os_pid, signal.SIGKILL)
    answers = [_results(one, "CODE:x!")[0] for _ in range(2)]
    assert any("This is a new Python session" in a and "NameError" in a for a in answers), answers
