"""Checks of how calls go: arguments, sizes, time, cancellation, concurrency, survival.

What: calls of the app, through the host that the kernel uses.
Invariant: a check never blames an app for what a busy machine does: it waits for conditions, with long limits.
Interface: `arguments`, `sizes`, `times`, `cancellation`, `concurrency`, `survival`, each from a `Subject` to findings.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from llmos.abi.errors import AppFailed, AppUnavailable, BadArguments, BadResult, DeadlineExceeded
from llmos.abi.manifest import Syscall
from llmos.conformance.findings import Finding, advice, fault, short
from llmos.conformance.subject import PATIENCE, QUIET, Subject
from llmos.conformance.values import large, wrong
from llmos.drivers.mcp.meta import MAX_REPLY_BYTES
from llmos.kernel.apphost import Outcome
from llmos.kernel.apphost.worker import ANSWER_SECONDS, GRACE_SECONDS

SIDE_BY_SIDE = 8  # calls at once
BUGS = frozenset(
    "TypeError AttributeError NameError UnboundLocalError AssertionError IndexError KeyError RecursionError "
    "MemoryError NotImplementedError ZeroDivisionError UnicodeDecodeError UnicodeEncodeError SystemExit "
    "StopIteration OverflowError".split()
)  # errors that nobody raises on purpose: their words help no model


def arguments(subject: Subject) -> Iterator[Finding]:
    """Arguments that do not fit are refused as such; those that fit come to a result or to an error that helps."""
    for one in subject.manifest.syscalls:
        for how, given in wrong(one.parameters):
            outcome = subject.call(one, given)
            if subject.lost(outcome):
                yield _crashed(one, how)
            elif not isinstance(outcome.error, (BadArguments, AppUnavailable)) and not one.loosened:
                yield fault(one.name, f"took {how}: {short(given)}", "check it in its types")
    for one in subject.called:
        for given in subject.cases(one):
            yield from _judged(subject, one, short(given), subject.call(one, given))


def _judged(subject: Subject, one: Syscall, given: str, outcome: Outcome) -> Iterator[Finding]:
    """What is wrong with how a call of good arguments ended."""
    match outcome.error:
        case AppUnavailable() if subject.lost(outcome):
            yield _crashed(one, given)
        case AppUnavailable() as error:
            yield advice(one.name, f"says that it cannot work here: {error}", "")
        case BadResult(what=what, why=why):
            yield fault(one.name, f"for {given}: {what}: {why}", "return what it promises")
        case DeadlineExceeded(what=what):
            yield fault(one.name, f"for {given}: {what}", "do less at once, or declare a longer deadline")
        case AppFailed(type=kind) if kind in BUGS:
            yield fault(one.name, f"for {given} raises {kind}", "raise an error that says what is wrong")


def _crashed(one: Syscall, given: str) -> Finding:
    return fault(one.name, f"takes its process along ({given})", "let no call end the process")


def sizes(subject: Subject) -> Iterator[Finding]:
    """Large arguments and large results are bounded: an answer or a typed error, and the process stands."""
    for one in subject.called:
        tried = [*large(one.parameters), *((short(given), given) for given in subject.cases(one))]
        for how, given in tried:
            outcome = subject.call(one, given)
            error = outcome.error
            if isinstance(error, BadResult) and str(MAX_REPLY_BYTES) in error.why:
                yield fault(one.name, f"with {how}: {error.what}", "bound it, and say what is left out")
            elif not isinstance(error, BadArguments):
                yield from _judged(subject, one, how, outcome)


def times(subject: Subject) -> Iterator[Finding]:
    """Calls end within the deadline that they declare, and with room to spare."""
    for one in subject.called:
        slowest = 0.0
        for given in subject.cases(one):
            outcome = subject.call(one, given)
            slowest = max(slowest, outcome.seconds)
            if isinstance(outcome.error, DeadlineExceeded):
                yield from _judged(subject, one, short(given), outcome)
                break
        else:
            if slowest > one.deadline / 2:
                took = f"took {slowest:.1f} of its {one.deadline:g} s"
                yield advice(one.name, took, "declare a longer deadline")


def cancellation(subject: Subject) -> Iterator[Finding]:
    """A call that nobody waits for stops: its process need not be killed for it."""
    for one in subject.called:
        for given in subject.cases(one)[:2]:
            before = _warm(subject, one)
            future = subject.start(one, given)
            with suppress(Exception):  # it may end by itself, in whatever way
                future.result(0.2)
            if future.cancel() and not _stands(subject, before):
                how = f"goes on when it is cancelled, until its process is killed ({short(given)})"
                yield fault(one.name, how, "look at call.cancelled now and then, or be async")
                break


def _warm(subject: Subject, one: Syscall) -> int:
    """The process that calls are made in, after one that was refused."""
    subject.call(one, {"no such argument": 1})
    process = subject.process()
    return process.os_pid if process is not None else 0


def _stands(subject: Subject, pid: int) -> bool:
    """Whether a process still stands once the host would have killed it."""
    end = time.monotonic() + GRACE_SECONDS + ANSWER_SECONDS + 1
    while (process := subject.process()) is not None and process.os_pid == pid:
        if time.monotonic() > end:
            return True
        time.sleep(0.1)
    return False


def concurrency(subject: Subject) -> Iterator[Finding]:
    """Calls side by side come to what they come to alone."""
    for one in subject.called:
        for given in subject.cases(one)[:2]:
            alone = [subject.call(one, given).text for _ in range(2)]
            steady = alone[0] == alone[1] and one.effect in QUIET
            together = [subject.start(one, given) for _ in range(SIDE_BY_SIDE)]
            outcomes = [future.result(one.deadline + PATIENCE) for future in together]
            strange = next(
                (found for o in outcomes if (found := _differs(o, alone[0] if steady else None))), ""
            )
            if strange:
                yield fault(one.name, f"{SIDE_BY_SIDE} at once: {strange}", "share nothing without a lock")


def _differs(outcome: Outcome, alone: str | None) -> str:
    if isinstance(outcome.error, (AppUnavailable, DeadlineExceeded)) and outcome.text != alone:
        return outcome.error.what
    if alone is not None and outcome.text != alone:
        return f"{short(outcome.text)}; alone: {short(alone)}"
    return ""


def survival(subject: Subject) -> Iterator[Finding]:
    """After kill -9 the next call works, and what `retry` promises holds."""
    for one in subject.called:
        if one.retry == "keyed":
            given: Any = subject.cases(one)[0]
            first, again = (subject.call(one, given, key=f"twice-{one.name}").text for _ in range(2))
            if first != again:
                how = f'retry="keyed", and one key came to {short(first)}, then to {short(again)}'
                yield fault(one.name, how, "keep on disk what came of a key")
    for one in subject.manifest.syscalls:
        if one.retry == "query" and not (outcome := subject.query(one, "a-key-that-nobody-used")).absent:
            how = f"its companion knows a key that nobody used: {short(outcome.text)}"
            yield fault(one.name, how, "return None for such a key")
    if not subject.called:
        return
    one = subject.called[0]
    if pid := _warm(subject, one):
        os.kill(pid, signal.SIGKILL)
    for _ in range(2):  # the first may meet the dying process
        outcome = subject.call(one, subject.cases(one)[0])
    if isinstance(outcome.error, AppUnavailable):
        why = outcome.error.why[:200]
        yield fault(
            one.name, f"does not work after its process was killed: {why}", "trip over nothing at the start"
        )
