"""The monitor: every branch of the rule, and what holds whatever a model writes."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.app import Effect
from llmos.abi.errors import ConfigError
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label, join
from llmos.abi.manifest import Syscall
from llmos.kernel.grants import Grant, check, covers
from llmos.kernel.monitor import NEEDED, Allow, Ask, Attempt, Deny, Policy, decide, provenance

MINE = Label(Integrity.STORE, frozenset({"me"}))
ALL = [Grant.parse("mail")]


def syscall(effect: Effect = "send", **changes: Any) -> Syscall:
    return Syscall(
        **{
            "name": "mail.send", "tool": "send", "description": "", "parameters": {}, "targets": ("to",),
            "payload": ("text",), "effect": effect, "retry": "never", "returns": "user", "deadline": 1.0,
        } | changes
    )  # fmt: skip


def attempt(to: Label = USER, text: Label = USER, **changes: Any) -> Attempt:
    return Attempt(syscall(**changes), {"to": "a@b.c", "text": "hello"}, {"to": to, "text": text})


def test_what_was_not_granted_is_denied_even_to_the_clean() -> None:
    for grants in ([], [Grant.parse("calculator")], [Grant.parse("mail.read")]):
        decision = decide(attempt(), grants, USER, Policy())
        assert isinstance(decision, Deny) and "mail.send" in decision.why


def test_an_untainted_window_is_the_users_own_hand() -> None:
    assert decide(attempt(), ALL, USER, Policy()) == Allow()


@pytest.mark.parametrize("effect", get_args(Effect))
@pytest.mark.parametrize("label", [USER, STORE, UNTRUSTED])
def test_a_target_below_the_needed_integrity_is_asked_about(effect: Effect, label: Label) -> None:
    decision = decide(attempt(to=label, effect=effect), ALL, UNTRUSTED, Policy())
    if label.integrity >= NEEDED[effect]:
        assert decision == Allow()
    else:
        assert isinstance(decision, Ask)
        (doubt,) = decision.doubts
        assert (doubt.argument, doubt.value, doubt.label) == ("to", "a@b.c", label)
        assert ("untrusted" if label == UNTRUSTED else "stored") in doubt.why


def test_what_leaves_must_be_readable_by_whom_it_reaches() -> None:
    decision = decide(attempt(text=MINE), ALL, MINE, Policy())
    assert isinstance(decision, Ask) and [d.argument for d in decision.doubts] == ["text"]
    assert "me only" in decision.doubts[0].why
    readable = Label(Integrity.STORE, frozenset({"me", "a@b.c"}))
    assert decide(attempt(text=readable), ALL, MINE, Policy()) == Allow()
    nobody = Label(Integrity.USER, frozenset())
    decision = decide(attempt(text=nobody), ALL, nobody, Policy())
    assert isinstance(decision, Ask) and "nobody only" in decision.doubts[0].why
    assert decide(attempt(text=MINE, effect="write"), ALL, MINE, Policy()) == Allow(), (
        "it stays on the machine"
    )


def test_what_leaves_for_nobody_knows_where_is_asked_about() -> None:
    """A search engine, say: a call without targets reaches somebody too."""
    search = Attempt(syscall("fetch", targets=()), {"text": "hello"}, {"text": MINE})
    decision = decide(search, ALL, MINE, Policy())
    assert isinstance(decision, Ask) and [d.argument for d in decision.doubts] == ["text"]
    everybodys = Attempt(syscall("fetch", targets=()), {"text": "hello"}, {"text": UNTRUSTED})
    assert decide(everybodys, ALL, MINE, Policy()) == Allow()


def test_without_declared_payload_every_argument_is() -> None:
    decision = decide(attempt(to=Label(Integrity.USER, frozenset({"me"})), payload=()), ALL, MINE, Policy())
    assert isinstance(decision, Ask) and [d.argument for d in decision.doubts] == ["to"]


def test_arguments_left_out_are_not_judged() -> None:
    call = Attempt(syscall(), {}, {})
    assert decide(call, ALL, UNTRUSTED, Policy()) == Allow()


def test_approval_is_for_the_value() -> None:
    asked = decide(attempt(to=UNTRUSTED), ALL, UNTRUSTED, Policy())
    assert isinstance(asked, Ask)
    approved = frozenset(("mail.send", *d.key) for d in asked.doubts)
    assert decide(attempt(to=UNTRUSTED), ALL, UNTRUSTED, Policy(), approved) == Allow()
    other = Attempt(syscall(), {"to": "evil@b.c", "text": "hello"}, {"to": UNTRUSTED})
    assert isinstance(decide(other, ALL, UNTRUSTED, Policy(), approved), Ask)
    assert isinstance(
        decide(attempt(to=UNTRUSTED, name="mail.forward"), ALL, UNTRUSTED, Policy(), approved), Ask
    )


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://docs.python.org/3/", True), ("https://docs.python.org.evil.com/", False),
        ("https://evil.com/docs.python.org", False), ("https://docs.python.org@evil.com/", False), ("no url", False),
    ],
)  # fmt: skip
def test_hosts_of_the_policy_may_be_fetched_from(url: str, trusted: bool) -> None:
    call = Attempt(syscall("fetch", targets=("url",), payload=()), {"url": url}, {"url": UNTRUSTED})
    decision = decide(call, ALL, UNTRUSTED, Policy(hosts=("docs.python.org",)))
    assert isinstance(decision, Allow if trusted else Ask)
    assert not Policy(hosts=("*",)).trusts("send", url), "a host is no leave to send mail"


labels = st.builds(
    Label, st.sampled_from(Integrity), st.none() | st.frozensets(st.sampled_from(["me", "you", "a@b.c"]))
)


@given(labels, labels, st.sampled_from(get_args(Effect)))
def test_no_taint_ever_opens_what_less_taint_would_not(to: Label, text: Label, effect: Effect) -> None:
    """Lower labels never turn an ask into an allow."""
    low = {"to": join([to, UNTRUSTED]), "text": join([text, MINE])}
    call = attempt(to, text, effect=effect)
    lower = Attempt(call.syscall, call.arguments, low)
    taint = join([to, text, UNTRUSTED])
    if isinstance(decide(lower, ALL, taint, Policy()), Allow):
        assert isinstance(decide(call, ALL, taint, Policy()), Allow)


@pytest.mark.parametrize(
    ("value", "said", "integrity"),
    [
        ("bob@corp.com", "write to bob@corp.com please", Integrity.USER),
        ("bob@corp.com", "write to bob@corp.com.", Integrity.USER),
        ("bob@corp.com", "write to bob@corp.com.evil.org", Integrity.UNTRUSTED),
        ("bob@corp.com", "write to jimbob@corp.com", Integrity.UNTRUSTED),
        ("corp.com", "write to bob@corp.com", Integrity.UNTRUSTED),
        ("/etc", "look into /etc/passwd", Integrity.UNTRUSTED),
        (5, "give 5 of them", Integrity.USER),
        (5, "give 55 of them", Integrity.UNTRUSTED),
        (True, "true", Integrity.UNTRUSTED),
        ([1], "[1]", Integrity.UNTRUSTED),
        ("  ", "a    b", Integrity.UNTRUSTED),
    ],
)  # fmt: skip
def test_a_value_that_the_user_said_is_the_users(value: object, said: str, integrity: Integrity) -> None:
    taint = Label(Integrity.UNTRUSTED, frozenset({"me"}))
    found = provenance(value, [("something else", USER), (said, USER), (str(value), UNTRUSTED)], taint)
    assert found == Label(integrity, taint.readers)


@pytest.mark.parametrize(
    ("text", "call", "arguments", "admitted"),
    [
        ("mail", "mail.send", {}, True), ("mail", "mailer.send", {}, False), ("mail.send", "mail.read", {}, False),
        ("files.read_*", "files.read_text", {}, True), ("files.read_*", "files.write", {}, False),
        ("mail.send(to=*@b.c)", "mail.send", {"to": "a@b.c"}, True),
        ("mail.send(to=*@b.c)", "mail.send", {"to": "a@b.c.d"}, False),
        ("mail.send(to=*@b.c)", "mail.send", {}, False),
        ("mail.send(to=*@b.c, text=hi*)", "mail.send", {"to": "a@b.c", "text": "ho"}, False),
    ],
)  # fmt: skip
def test_grants(text: str, call: str, arguments: dict[str, object], admitted: bool) -> None:
    grant = Grant.parse(text)
    assert grant.admits(call, arguments) == admitted
    assert Grant.parse(str(grant)) == grant


@pytest.mark.parametrize(
    "text", ["", "mail.", "mail send", "mail.send(to)", "mail.send(to=a", "mail.send(=a)"]
)
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a grant"):
        Grant.parse(text)


def test_an_unknown_grant_is_refused_with_the_nearest_name() -> None:
    check([Grant.parse("calculator")], ["calculator.evaluate"])
    with pytest.raises(ConfigError, match="did you mean 'calculator'"):
        check([Grant.parse("calculater")], ["calculator.evaluate"])
    with pytest.raises(ConfigError, match="apps:"):
        check([Grant.parse("xyzzy")], [])


patterns = st.text("ab.*?", min_size=1, max_size=5)


@given(patterns, patterns, st.text("ab.", max_size=6))
def test_a_grant_that_covers_another_admits_whatever_it_admits(wide: str, narrow: str, name: str) -> None:
    have, want = Grant(wide), Grant(narrow)
    if covers([have], want) and want.admits(name, {}):
        assert have.admits(name, {})


@pytest.mark.parametrize(
    ("have", "want", "covered"),
    [
        ("mail", "mail.send", True), ("mail.send", "mail", False), ("mail.*", "mail.send(to=a)", True),
        ("mail.send(to=a*)", "mail.send", False), ("mail.send(to=a*)", "mail.send(to=ab)", True),
        ("mail.send(to=a*)", "mail.send(to=*)", False), ("mail.send(to=a?)", "mail.send(to=a*)", False),
    ],
)  # fmt: skip
def test_covering(have: str, want: str, covered: bool) -> None:
    assert covers([Grant.parse(have)], Grant.parse(want)) == covered


def test_a_value_that_nobody_said_is_as_tainted_as_the_window() -> None:
    assert provenance("x", [], MINE) == provenance("x", [("y", USER)], MINE) == MINE
