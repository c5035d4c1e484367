"""The machine at one moment, as lines.

What: what `/ps` and `/top` show.
Invariant: names that came from outside cannot touch the terminal.
Interface: `head(now, before)`, `lines(now)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.drivers.terminal import table

if TYPE_CHECKING:
    from llmos.abi.machine import Top


def head(now: Top, before: Top) -> list[str]:
    """The whole machine; rates are between two moments, or since boot where they are the same."""
    took = now.seconds - before.seconds or now.seconds or 1.0
    since = before if now is not before else None
    written = now.written - (since.written if since else 0)
    computed = now.computed - (since.computed if since else 0)
    busy = sum(p.state in ("ready", "running") for p in now.processes)
    return [
        f"{len(now.processes)} processes, {busy} at work, {len(now.apps)} apps, up {now.seconds:.0f} s",
        f"{written / took:.1f} tokens/s written, {computed / took:.1f} computed",
        f"{now.pages_held:,} of {now.pages:,} pages held, {now.faults:,} faults, {now.preemptions:,} pre-emptions",
        "",
    ]


def lines(now: Top) -> list[str]:
    """A line each for processes and apps; at most 80 columns with usual names. Behind the name of a process that runs
    with an adapter stands its version."""
    rows: list[tuple[str, ...]] = [
        ("PID", "PPID", "NAME", "STATE", "CLASS", "TURN", "TOKENS", "CALLS", "PAGES", "S")
    ]
    for p in now.processes:
        numbers = (p.turn, p.tokens, p.syscalls, p.pages)
        name = f"{p.name[:11]}+{p.adapter[:6]}" if p.adapter else p.name[:18]
        rows.append(
            (str(p.pid), str(p.parent), name, p.state, p.priority, *map(str, numbers), f"{p.seconds:.0f}")
        )
    for a in now.apps:
        rows.append(("-", str(a.agent), a.name[:18], a.state, "-", "-", "-", str(a.calls), "-", "-"))
    return table(rows)
