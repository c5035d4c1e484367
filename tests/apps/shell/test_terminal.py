"""The shell at a real terminal, on a scripted machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.kernel.journal import read
from llmos.kernel.journal.records import Feedback
from tests.apps.shell.conftest import Terminal

Spawn = Callable[..., Terminal]
CSI = re.compile(r"\x1b\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]")


def test_the_prompt_does_not_wait_for_the_model(terminal: Spawn) -> None:
    shell = terminal("--loads", "6")
    shell.sees("Ask anything", "the model is loading")
    shell.types("hello there")
    shell.send("typed on")
    shell.sees("typed on")
    shell.sees("You said hello there.", "tokens/s")
    shell.send("\x03")
    shell.send("\x04")
    assert shell.ends() == 0


def test_leaving_while_it_loads(terminal: Spawn) -> None:
    shell = terminal("--loads", "300")
    shell.sees("the model is loading")
    shell.send("\x04")
    assert shell.ends() == 0


def test_markdown_is_painted_and_nothing_of_it_acts(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("markdown")
    seen = shell.sees("tokens/s")
    for text in (
        "Title",
        "漢字",
        "👋🏽",
        "def",
        "return",
        "<b>html</b>",
        "http://127.0.0.1:9/x.png",
        "␛]0;owned␇",
    ):
        assert text in seen, text
    assert "\x1b]" not in seen, "no title, no link, no clipboard"
    assert re.search(r"\x1b\[[0-9;]*m[^\x1b]*def", seen), "code is coloured"


def test_no_colour_where_none_is_wanted(terminal: Spawn) -> None:
    shell = terminal(env={"NO_COLOR": "1"})
    shell.types("markdown")
    seen = shell.sees("tokens/s")
    colours = [m[0] for m in CSI.finditer(seen) if m[0].endswith("m")]
    assert not [c for c in colours if re.search(r"\b(3[0-7]|38|4[0-7]|48|9[0-7])\b", c)], colours


def test_ctrl_c_ends_the_turn_never_the_shell(terminal: Spawn) -> None:
    shell = terminal()
    for _ in range(3):
        shell.types("long")
        shell.sees("word word")
        shell.send("\x03")
        shell.sees("cancelled")
    for _ in range(5):
        shell.send("\x03")
    shell.types("still there?")
    shell.sees("You said still there?.")


def test_questions_are_asked_while_it_answers(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("long")
    shell.sees("word word")
    shell.types("and this")
    shell.sees("cut at the token limit", "You said and this.")


def test_jobs(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("You said hello.", "tokens/s")
    shell.types("long")
    shell.sees("word word")
    shell.types("/bg")
    shell.sees("[1] agent goes on in the background")
    answered = "[1] agent has answered; /fg 1 shows it"
    told = False  # whenever it is ready
    for line, shown in (("another", "You said another."), ("/jobs", "*  2")):
        shell.types(line)
        while shell.expect_exact([shown, answered]):
            told = True
    if not told:
        shell.sees(answered)
    shell.types("/fg 1")
    shell.sees("you talk to process 1", "word word", "cut at the token limit")
    shell.types("/kill 2 KILL")
    shell.sees("KILL to process 2")
    shell.types("/ps")
    shell.sees("PPID", "agent")
    shell.types("/top")
    shell.sees("tokens/s written", "PPID")
    shell.send("\x03")
    shell.types("/fg 99")
    shell.sees("there is no process 99", "ps")
    shell.types("/nonsense")
    shell.sees("There is no /nonsense")


def test_forks_are_compared_and_one_is_picked(terminal: Spawn, tmp_path: Path) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("tokens/s")
    shell.types("/fork 2 count")
    shell.sees("forked: 2, 3")
    shell.sees("has answered", "has answered")
    shell.types("/diff 1 2")
    shell.sees("-You said hello.", "+2")
    shell.types("/diff")
    shell.sees("they have answered the same")
    shell.types("/pick 2")
    shell.sees("noted: process 2 rather than 3")
    shell.types("/good")
    shell.sees("noted")
    shell.types("/undo")
    shell.sees("taken back: count")
    shell.types("/history")
    shell.sees("turn 1", "You said hello.")
    shell.send("\x04")
    assert shell.ends() == 0
    (folder,) = (tmp_path / "state" / "private").iterdir()
    found = [(r.pid, r.body) for r in read(folder, kinds=[Feedback])]
    assert [(pid, b.verdict, b.of) for pid, b in found if isinstance(b, Feedback)] == [
        (2, "prefer", 3), (2, "good", 0)
    ]  # fmt: skip


def test_a_conversation_is_kept_forgotten_and_taken_up_again(terminal: Spawn, tmp_path: Path) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("You said hello.", "tokens/s")
    shell.types("/page-in turn 1")
    shell.sees("turn 1 stands in the windows to come")
    shell.types("/unpin turn 1")
    shell.sees("turn 1 stands where it is wanted")
    shell.types("/bad")
    shell.sees("noted")
    shell.types("/fix Hello yourself.")
    shell.sees("noted")
    shell.types(f'/save "{tmp_path}/a talk.llmos"')
    shell.sees("saved: ", "a talk.llmos")
    shell.types("/new")
    shell.sees("a new conversation")
    shell.types("/history")
    shell.sees("nothing yet")
    shell.types(f"/resume {tmp_path}/a talk.llmos")
    shell.sees("you talk to process 2")
    shell.types("/history")
    shell.sees("turn 1", "You said hello.")
    shell.types("/undo 2")
    shell.sees("there are 1 exchanges to take back")
    shell.types("/resume nowhere.llmos")
    shell.sees("nowhere.llmos cannot be read")
    shell.types("/help fix")
    shell.sees("/fix TEXT", "what the last answer should have been")
    shell.types("/tree")
    shell.sees("was not thought about")
    shell.types("/umount nowhere")
    shell.sees("nowhere is not mounted")
    shell.types("/quit")
    assert shell.ends() == 0
    (folder,) = (tmp_path / "state" / "private").iterdir()
    found = [r.body for r in read(folder, kinds=[Feedback])]
    assert [(b.verdict, b.text) for b in found if isinstance(b, Feedback)] == [
        ("bad", ""), ("correct", "Hello yourself.")
    ]  # fmt: skip


def test_commands_that_are_used_wrongly_say_how(terminal: Spawn) -> None:
    shell = terminal()
    for line, said in (
        ("/use", "usage: /use EXPERT | nobody"),
        ("/fix", "usage: /fix TEXT"),
        ("/pin", "usage: /pin turn N"),
        ("/umount", "usage: /umount PATH"),
        ("/resume", "usage: /resume FILE | PID"),
        ("/kill 1 HUP", "usage: /kill PID"),
        ("/pick", "usage: /pick PID"),
        ("/fork 9", "usage: /fork [N]"),
        ("/think", "usage: /think BUDGET"),
        ("/help nothing", "usage: /help [COMMAND]"),
        ("/apps nothing", "usage: /apps [APP]"),
        ("/diff 1", "two processes are compared"),
        ("/fg", "nothing is in the background"),
        ("/fg x", "'x' is no pid"),
        ("/good", "nothing was answered yet"),
        ("/mount nowhere", "nothing to mount at nowhere"),
    ):
        shell.types(line)
        shell.sees(said)
    shell.types("日本語と👋🏽、漢字")
    shell.sees("You said 日本語と👋🏽、漢字.", "tokens/s")


def test_looking_in(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("tokens/s")
    shell.types("/trace")
    shell.sees("<|im_start|>", "user")
    shell.types("/pmap")
    shell.sees("PAGES", "assistant")
    shell.types("/next")
    shell.sees("other tokens together")
    shell.types("/why")
    shell.sees("tokens, each")
    shell.types("/pin turn 1")
    shell.sees("turn 1 stays in every window")
    shell.types("/page-out turn 7")
    shell.sees("within the reach")


def test_an_approval_shows_the_literal_value(terminal: Spawn) -> None:
    shell = terminal("--grant", "shop")
    shell.types("buy tea")
    seen = shell.sees("shop.pay wants to use this as `to`", "eve␛[2J", "untrusted", "Allow this value? [y/N]")
    assert "\x1b[2J" not in seen
    shell.send("and then some")
    shell.types("")
    shell.sees("was not approved", "done")
    shell.types("buy tea")
    shell.sees("Allow this value? [y/N]")
    shell.types("yes")
    shell.sees("paid 5", "done")


def test_what_was_typed_before_is_no_answer(terminal: Spawn) -> None:
    shell = terminal("--grant", "shop", "--loads", "3")
    shell.types("buy tea")
    shell.send("y")  # is on the line when the question comes
    shell.sees("Allow this value? [y/N]")
    shell.types("")
    shell.sees("was not approved")
    shell.sees("done")
    shell.send("es\r")
    shell.sees("You said yes.")


def test_pasted_megabytes(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("tokens/s")
    shell.delaybeforesend = None
    text = "lorem ipsum \r" * 80_000
    shell.send("\x1b[200~")
    for at in range(0, len(text), 4096):
        shell.send(text[at : at + 4096])
    shell.send("\x1b[201~")
    shell.sees("[paste 1: 1,040,000 characters]")
    shell.types("")
    shell.sees("fit the window")
    shell.types("alive")
    shell.sees("You said alive.")


def test_bytes_that_are_no_text(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("tokens/s")
    os.write(shell.child_fd, b"wh\xffy\xc3\r")
    shell.sees("You said wh", "tokens/s")
    shell.types("/fix \x1b[3D")
    shell.types("alive")
    shell.sees("You said alive.")


@pytest.mark.slow
def test_absurd_sizes(terminal: Spawn) -> None:
    shell = terminal(size=(2, 8))
    shell.types("hello")
    shell.sees("tokens")
    for size in [(1, 1), (500, 1000), (3, 400), (40, 2)]:
        shell.setwinsize(*size)
        shell.types("markdown")
        shell.types("/pmap")
        shell.types("/ps")
        shell.sees("interac")
    shell.setwinsize(24, 80)
    shell.types("alive")
    shell.sees("You said alive.", "tokens/s")
    shell.send("\x04")
    assert shell.ends() == 0


def test_completion(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("hello")
    shell.sees("tokens/s")
    shell.send("/pag\t")
    shell.sees("/page-")
    shell.send("\x15")
    shell.send("/mount READ\t")
    shell.sees("ME.md")
    shell.send("\x15what is in @CHANGE\t")
    shell.sees("LOG.md")
    shell.send("\x15/grant calcul\t")
    shell.sees("calculator")
    shell.send("\x15/use libr\t")
    shell.sees("arian")


def test_history_is_kept_between_sessions(terminal: Spawn, tmp_path: Path) -> None:
    shell = terminal()
    shell.types("remember me")
    shell.sees("You said remember me.")
    shell.send("\x04")
    assert shell.ends() == 0
    kept = tmp_path / "state" / "shell_history"
    assert kept.stat().st_mode & 0o777 == 0o600
    shell = terminal()
    shell.sees("Ask anything")
    shell.send("\x1b[A")
    shell.sees("remember me")


def test_plain(terminal: Spawn) -> None:
    shell = terminal("--plain", "--grant", "shop")
    shell.sees("Ask anything", "› ")
    shell.types("markdown")
    seen = shell.sees("tokens/s")
    assert "\x1b" not in seen and "␛]0;owned␇" in seen and "| a | b |" in seen
    shell.types("buy tea")
    shell.sees("eve␛[2J", "[y/N]")
    shell.types("y")
    shell.sees("paid 5", "tokens/s")
    shell.types("long")
    shell.sees("word word")
    for _ in range(20):
        shell.sendintr()
    shell.sees("cancelled")
    shell.types("/pmap")
    assert "\x1b" not in shell.sees("tokens")
    shell.types("/quit")
    assert shell.ends() == 0


def test_a_dumb_terminal_gets_plain_lines(terminal: Spawn) -> None:
    shell = terminal(env={"TERM": "dumb"})
    shell.types("hello")
    assert "\x1b" not in shell.sees("You said hello.", "tokens/s")


def test_process_one_is_the_operator_and_asks_before_it_kills(terminal: Spawn) -> None:
    shell = terminal("--operator")
    shell.types("hello")
    shell.sees("You said hello.", "tokens/s")
    shell.types("/ps")
    shell.sees("1    0     operator", "2    0     agent")
    shell.types("/fg 1")
    shell.sees("you talk to process 1, operator")
    shell.types("end process 2")
    shell.sees("machine.kill wants to use this as `pid`", "2", "process 2 is agent: it would end", "[y/N]")
    shell.types("no")
    shell.sees("was not approved")
    shell.types("/ps")
    shell.sees("2    0     agent")
    shell.types("end process 2")
    shell.sees("[y/N]")
    shell.types("y")
    shell.sees("KILL was sent to process 2", "It has ended.")
    shell.types("/fg 2")
    shell.types("/jobs")
    shell.sees("operator")


def test_experts_apps_and_grants(terminal: Spawn) -> None:
    shell = terminal()
    shell.types("/experts")
    shell.sees("librarian", "shipped", "/use NAME")
    shell.types("/use librarien")
    shell.sees("did you mean 'librarian'?")
    shell.types("/use assistant")
    shell.sees("you talk to process 1, assistant", "What is 17 % of 2340?")
    shell.types("/grant")
    shell.sees("may call calculator.evaluate")
    shell.types("/grant shop -calculator.evaluate")
    shell.sees("may call", "shop")
    shell.types("/grant nobody.at_all")
    shell.sees("no syscall answers")
    shell.types("/apps shop")
    shell.sees("shop.pay", "pay")


def test_bash_and_python_in_the_sandbox(terminal: Spawn) -> None:
    from llmos.drivers.sandbox import Limits, Sandbox, SandboxMissing

    try:
        Sandbox(["/bin/true"], Limits()).end()
    except SandboxMissing as error:
        pytest.skip(f"no sandbox on this machine: {error}")
    shell = terminal()
    shell.types("!echo $((6 * 7)) > answer.txt; cat answer.txt; printf '\\033[2Jx'")
    seen = shell.sees("42", "[2Jx")
    assert "\x1b[2Jx" not in seen
    shell.types("!py n = int(open('answer.txt').read())")
    shell.sees("n = 42")
    shell.types("!py pass")
    shell.sees("(nothing was printed)")
    shell.types("!py n * 10")
    shell.sees("420")
    shell.types("!sleep 500")
    shell.sees("!sleep 500")
    shell.send("\x03")
    shell.sees("given up")
    shell.types("!")
    shell.sees("there is nothing to run")
