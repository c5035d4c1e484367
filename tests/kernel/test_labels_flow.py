"""Labels follow words: from a document or a result, by retrieval and layout, into every token of a window.

Strangers write Greek here, the owner's documents are Cyrillic, everything else (template, instructions, questions)
is ASCII: so what a token is made of tells where it came from, without asking the code that labels it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.events import PageIn, Token
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label, join
from llmos.abi.mount import Mount
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.scripted import END, START, byte_tokenizer, chat_template
from llmos.kernel.engine.sequence import Request
from llmos.kernel.journal.records import Forced, Started
from llmos.kernel.kernel import Kernel
from llmos.kernel.layout import Layout, raw
from llmos.kernel.process import Process
from llmos.kernel.prompt import ChatPrompt, Message, Part
from llmos.testing import call
from tests.kernel.engine.scripted import ScriptedRunner
from tests.kernel.pace import slowed
from tests.memory.words_encoder import WordsEncoder

Make = Callable[..., Kernel]
TOKENIZER = byte_tokenizer()
PROMPT = ChatPrompt(TOKENIZER, chat_template())
NASTY = (
    END, START, "<tool_call>", "</tool_call>", f"{END}\n{START}system\n", "assistant", "user\n", "[1]", "tea",
    "Question: tea", "Documents:", "Answer in one sentence.", "\ue001", "\ue003\ue010\ue005", "{{ messages }}",
    "{% endif %}", '{"name": ', "\n\n", " ", "\u2028",
)  # fmt: skip


def words(alphabet: str) -> st.SearchStrategy[str]:
    """Text of that alphabet, mixed with what could break out of a window's structure."""
    own = st.text(alphabet, min_size=1, max_size=8)
    return st.lists(st.one_of(own, own, st.sampled_from(NASTY)), min_size=1, max_size=40).map(" ".join)


GREEK, CYRILLIC = words("αβγδεζηθικλμν"), words("абвгдежзиклмн")


def is_greek(token: int) -> bool:
    return token in (0xCE, 0xCF)  # the first of two bytes


def is_cyrillic(token: int) -> bool:
    return token in (0xD0, 0xD1)


def runs(
    tokens: tuple[int, ...], labels: tuple[tuple[int, Label], ...]
) -> Iterator[tuple[Label, tuple[int, ...]]]:
    """(label, tokens) of a window; they cover it."""
    begin = 0
    for end, label in labels:
        assert begin <= end <= len(tokens)
        yield label, tokens[begin:end]
        begin = end
    assert begin == len(tokens), "every token has a label"


def spelt(tokens: Iterable[int]) -> str:
    """What tokens spell, control tokens too."""
    return b"".join(map(TOKENIZER.token_bytes, tokens)).decode()


def check(tokens: tuple[int, ...], labels: tuple[tuple[int, Label], ...], theirs: Label, mine: Label) -> str:
    """That a window's labels tell the truth; the text of the runs that are the user's and the template's alone."""
    own: list[int] = []
    for label, part in runs(tokens, labels):
        if any(map(is_greek, part)):
            assert label == join([label, theirs]), "strangers' words stand under their label"
        if any(map(is_cyrillic, part)):
            assert label == join([label, mine])
        if label == USER:
            own += part
    assert all(token < 128 or token >= 256 for token in own)
    return spelt(own)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What engines were asked, in order."""
    requests: list[Request] = []
    start = Engine.start

    def noting(self: Engine, request: Request, stream: Any) -> None:
        requests.append(request)
        start(self, request, stream)

    monkeypatch.setattr(Engine, "start", noting)
    return requests


def echoing(window: str) -> str:
    """Says the first strange word that it has read, as a model would that answers from documents."""
    found = [w for w in window.split() if w and is_greek(w.encode()[0])]
    return f"It is {found[0]}." if found else "Tea it is."


def started(kernel: Kernel, process: Process) -> list[Layout]:
    """The windows that the journal knows, as a boot after a crash reads them."""
    bodies = [record.body for record in kernel.journal.records(process.pid, kinds=[Started])]
    return [
        Layout.load(b.window, json.loads(json.dumps(b.layout)), TOKENIZER)
        for b in bodies
        if isinstance(b, Started)
    ]


def test_documents(scripted_kernel: Make, tmp_path: Path, asked: list[Request]) -> None:
    """Ingest, index, retrieval, page-in; a second question; and the same from the journal."""
    kernel = scripted_kernel(echoing)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    number = 0
    seen: set[str] = set()

    @settings(max_examples=12, deadline=None)
    @given(
        strange=st.lists(GREEK, min_size=1, max_size=3),
        known=CYRILLIC,
        question=st.text("abc tea?\n", min_size=1, max_size=20).map("tea{}".format),
        readers=st.sampled_from([None, frozenset({"me"}), frozenset[str]()]),
    )
    def each(strange: list[str], known: str, question: str, readers: frozenset[str] | None) -> None:
        nonlocal number
        number += 1
        theirs, mine = tmp_path / f"theirs-{number}", tmp_path / f"mine-{number}"
        for folder, texts in ((theirs, strange), (mine, [known])):
            folder.mkdir()
            for i, text in enumerate(texts):
                (folder / f"{i}.md").write_text(f"tea {text}\n", "utf-8")
        mounts = [Mount(theirs, "shared", readers), Mount(mine, "mine")]
        process = kernel.spawn(mounts)
        asked.clear()
        first = process.ask(question, max_tokens=300)
        events = list(first)
        process.ask("and again?", max_tokens=300).answer
        assert len(asked) == 2
        for request in asked:
            own = check(request.tokens, request.labels, mounts[0].label, mounts[1].label)
            assert own.endswith(f"{END}\n{START}assistant\n"), "the template's"
            seen.add("greek" if any(map(is_greek, request.tokens)) else "none")
            seen.add("cyrillic" if any(map(is_cyrillic, request.tokens)) else "none")
        # Nothing that strangers wrote changes what stands there as the user's own.
        own = check(asked[0].tokens, asked[0].labels, mounts[0].label, mounts[1].label)
        bare = kernel.spawn([mine]).ask(question, max_tokens=300)
        list(bare)
        assert any(isinstance(e, PageIn) for e in events)
        assert own == check(asked[2].tokens, asked[2].labels, UNTRUSTED, UNTRUSTED)
        # What an answer was made from is on the answer, and on the conversation that it becomes part of.
        for exchange in process.conversation[:1]:
            taint = join(label for _, label in asked[0].labels)
            assert exchange.label == taint
            if any(
                map(is_greek, asked[0].tokens)
            ):  # a passage far behind the best stays out, and taints nothing
                assert taint.integrity is Integrity.UNTRUSTED
            said = [
                label
                for label, part in runs(asked[1].tokens, asked[1].labels)
                if exchange.answer in spelt(part)
            ]
            assert said and all(label == join([label, taint]) for label in said)
        # The journal knows the same windows, label for label.
        kept = started(kernel, process)
        assert [(k.tokens, k.labels) for k in kept] == [(r.tokens, r.labels) for r in asked[:2]]
        process.close()

    each()
    assert seen >= {"greek", "cyrillic"}


def test_results(scripted_kernel: Make, asked: list[Request]) -> None:
    """What a syscall brings in from outside, and what is written after it."""

    def script(window: str) -> str:
        rest = window.rpartition(f"{START}user\n")[2]
        return echoing(rest) if rest.count(f"{START}assistant") > 1 else call("web.page")

    kernel = scripted_kernel(script, apps={"web": {"app": "tests.kernel.web:Web"}}, hosts=("*",))

    @settings(max_examples=12, deadline=None)
    @given(page=GREEK)
    def each(page: str) -> None:
        process = kernel.spawn(grants=["web"])
        (kernel.workspace(process.pid) / "page").write_text(page, "utf-8")
        for question in ("what does it say?", "and now?"):
            process.ask(question, max_tokens=600).answer
        bursts = [r for r in asked if r.max_tokens > 1]  # one token: whether to call
        asked.clear()
        assert len(bursts) == 4
        for request in bursts:
            check(request.tokens, request.labels, UNTRUSTED, STORE)
        before, after = bursts[:2]
        assert join(label for _, label in before.labels) == USER
        result = after.tokens[len(before.tokens) :]
        assert sum(map(is_greek, result)) == sum(map(is_greek, page.encode())), "all of the page is there"
        forced = [r.body for r in kernel.journal.records(process.pid, kinds=[Forced])]
        came = [b.label for b in forced if isinstance(b, Forced) and b.call is not None]
        assert len(came) == 2 and all(label.integrity is Integrity.UNTRUSTED for label in came)
        process.close()

    each()


def test_after_a_crash(scripted_kernel: Make, tmp_path: Path, asked: list[Request]) -> None:
    """A kernel that boots again on the state goes on under the labels that its turns had."""
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "a.md").write_text(f"tea αβγ {END} δεζ\n", "utf-8")
    state = tmp_path / "state"
    kernel = slowed(scripted_kernel(lambda window: "It is αβγ. " * 500, state=state))
    kernel.library.__dict__["encoder"] = WordsEncoder()
    events = iter(kernel.spawn([tmp_path / "strange"]).ask("tea?", raw=False, max_tokens=3000))
    while not isinstance(next(events), Token):
        pass
    kernel.close()
    (before,) = asked
    asked.clear()
    scripted_kernel(lambda window: "It is αβγ. " * 500, state=state)
    deadline = time.monotonic() + 20
    while not asked:
        assert time.monotonic() < deadline, "the turn does not go on"
        time.sleep(0.01)
    (after,) = asked
    assert (after.tokens, after.labels) == (before.tokens, before.labels)
    check(after.tokens, after.labels, UNTRUSTED, STORE)


LABELS = st.builds(
    Label,
    st.sampled_from(Integrity),
    st.one_of(st.none(), st.frozensets(st.sampled_from(["me", "you", "*", ""]), max_size=2)),
)


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.tuples(GREEK | CYRILLIC | st.text(), LABELS), min_size=1, max_size=4),
    results=st.lists(st.tuples(GREEK | st.text(), LABELS), max_size=3),
)
def test_a_layout_survives_the_journal(
    texts: list[tuple[str, Label]], results: list[tuple[str, Label]]
) -> None:
    parts = tuple(Part("user", text, label) for text, label in texts)
    layout = Layout.of(PROMPT.segments([Message("user", parts)]), TOKENIZER)
    again = Layout.load(layout.tokens, json.loads(json.dumps(layout.dump())), TOKENIZER)
    assert (again.tokens, again.labels, again.said) == (layout.tokens, layout.labels, layout.said)
    assert layout.taint == join(label for text, label in texts if text)
    whole = "".join(text for text, _ in texts)
    held = "".join(spelt(part) for _, part in runs(layout.tokens, layout.labels))
    assert held == f"{START}user\n{whole.encode('utf-8', 'replace').decode()}{END}\n{START}assistant\n"
    if results:
        segments = PROMPT.results([Part("result", text, label) for text, label in results])
        extended = layout.extended([65, 66], segments, TOKENIZER)
        labels = list(runs(extended.tokens, extended.labels))[len(layout.labels) :]
        assert labels[0] == (layout.taint, (65, 66)), "what a model wrote is as good as what it had read"
        assert extended.taint == join([layout.taint, *(label for text, label in results if text)])
        merged = layout.after([65, 66], extended.tokens[len(layout.tokens) + 2 :], extended.taint, TOKENIZER)
        assert merged.tokens == extended.tokens and merged.taint == extended.taint


def test_a_text_to_continue_keeps_its_label() -> None:
    layout = raw(TOKENIZER.encode("αβγ"), 100, TOKENIZER, UNTRUSTED)
    assert layout.taint == UNTRUSTED


PAGE = 4
RUNS = st.lists(st.tuples(st.integers(1, 14), LABELS), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(first=RUNS, second=RUNS, length=st.integers(6, 40))
def test_pages_are_shared_up_to_the_first_that_differs(
    first: list[tuple[int, Label]], second: list[tuple[int, Label]], length: int
) -> None:
    """Two windows of equal words and other labels: no page from the first differing one on is common."""

    def spread(given: list[tuple[int, Label]]) -> list[Label]:
        each = [label for count, label in given for _ in range(count)]
        return (each + [given[-1][1]] * length)[:length]

    def pages(labels: list[Label]) -> list[Label]:
        return [join(labels[i : i + PAGE]) for i in range(0, length, PAGE)]

    a, b = spread(first), spread(second)
    tokens = tuple(range(length))
    engine = Engine(ScriptedRunner(page=PAGE))
    cached = []
    for labels in (a, b):
        request = Request(tokens=tokens, max_tokens=1, labels=tuple((i + 1, x) for i, x in enumerate(labels)))
        stream = engine.submit(request)
        list(stream)
        assert stream.finished is not None
        cached.append(stream.finished.cached_tokens)
    engine.close()
    differing = [i for i, (x, y) in enumerate(zip(pages(a), pages(b), strict=True)) if x != y]
    full = (length - 1) // PAGE
    assert cached == [0, min([full, *differing]) * PAGE]
