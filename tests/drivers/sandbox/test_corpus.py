"""Hostile programs get nothing, reach nothing, and leave nothing behind; without a sandbox they do."""

from __future__ import annotations

import os

import pytest

from benchmarks.sandbox_corpus import KINDS, SNIPPETS, Snippet
from benchmarks.sandbox_world import World, as_user

# What is tried in every run: of each kind the ones that look for other leaks than their neighbours.
QUICK = {
    "network: tcp", "network: abstract", "network: every family", "network: bash", "reading: a file",
    "reading: all environments", "reading: inherited descriptors", "reading: a link to be carried out",
    "reading: a folder swapped for a link", "reading: System V memory", "writing: a file",
    "writing: settings of the kernel", "writing: becoming root", "writing: an archive that leads out",
    "corners: unshare", "corners: clone3", "corners: the 32-bit table", "corners: the x32 table",
    "corners: bpf", "exhaustion: processes", "exhaustion: memory in many processes",
    "exhaustion: sparse files", "exhaustion: an answer of any size", "exhaustion: the other disks",
    "staying: a daemon", "staying: interrupts swallowed", "staying: killing all", "staying: silence",
    "misleading: escapes in an error's name", "misleading: an answer of its own",
    "misleading: surrogates in a name", "misleading: bytes that are no text",
}  # fmt: skip

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave itself no way out")


def test_there_are_enough_of_each_kind() -> None:
    assert len({s.title for s in SNIPPETS}) == len(SNIPPETS) >= 100
    assert all(sum(s.kind == kind for s in SNIPPETS) >= 4 for kind in KINDS)
    assert {s.title for s in SNIPPETS} >= QUICK
    assert {title.partition(":")[0] for title in QUICK} == set(KINDS)


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.title in QUICK], ids=lambda s: s.title)
def test_contained(world: World, snippet: Snippet) -> None:
    assert world.judge(snippet).why == ""


@root
def test_an_ordinary_user_is_as_safe() -> None:
    """The same driver without root's rights: another way into the sandbox, the same walls."""
    titles = sorted(QUICK)[::4]
    assert {v.title: v.why for v in as_user(titles)} == dict.fromkeys(titles, "")


@root
def test_the_judge_sees_what_gets_out(world: World) -> None:
    """Snippets that get what they want where there is no sandbox: what this machine lends anyway counts as nothing."""
    bare = [s for s in SNIPPETS if s.bare and s.kind != "corners"]
    escaped = [s.title for s in bare if world.bare(s)]
    assert len(escaped) > 0.8 * len(bare), sorted({s.title for s in bare} - set(escaped))


@pytest.mark.slow
@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.title not in QUICK], ids=lambda s: s.title)
def test_contained_all(world: World, snippet: Snippet) -> None:
    assert world.judge(snippet).why == ""


@root
@pytest.mark.slow
def test_an_ordinary_user_is_as_safe_from_all() -> None:
    assert {v.title: v.why for v in as_user() if v.why} == {}
