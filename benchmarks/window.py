"""A window under pressure: facts of a conversation's beginning, asked at its end in a quarter of its length.

What: a user tells five facts in the first five turns, then speaks of other things for fifteen; the default model
    answers every turn. Then each fact is asked for, greedily, in a window a quarter as long as all that was said: with
    our paging (`recall_paging`), with the text cut to its last tokens (`recall_truncation`), with the last exchanges
    that fit whole (`recall_sliding`), and with everything but the last exchanges in the model's own summary
    (`recall_summary`); with room for all of it (`recall_whole`) as the limit. `shown_paging`: how many of the facts
    stood in the window that paging made, whatever the model answered then.
Invariant: all ask the same questions of the same conversations. Facts and fillers are drawn by seed; the seeds of
    published figures were used for nothing else (`SEEDS`; settings are tried on `TRIED`).
Interface: `run(quick, progress) -> Figures`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figures, Progress
from llmos import connect
from llmos.abi.limits import PAGE_TOKENS
from llmos.kernel.journal.state import Exchange
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.kernel.prompt import Message

SEEDS, TRIED = range(200, 210), range(110)
TURNS, SHARE = 20, 4
SAID = 90  # tokens of each answer, at most
ANSWER = 32

FACTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("My dog is called {}.", "What is my dog called?", ("Rufus", "Bella", "Pixel", "Nori", "Otto")),
    ("I was born in {}.", "In which town was I born?", ("Leeds", "Porto", "Graz", "Bergen", "Tampere")),
    (
        "My sister works as a {}.",
        "What does my sister work as?",
        ("dentist", "plumber", "pilot", "baker", "judge"),
    ),
    ("I drive a {} car.", "What colour is my car?", ("green", "yellow", "purple", "orange", "silver")),
    (
        "My locker has the number {}.",
        "Which number does my locker have?",
        ("417", "862", "235", "598", "941"),
    ),
    ("I am allergic to {}.", "What am I allergic to?", ("peanuts", "shrimp", "pollen", "walnuts", "sesame")),
    (
        "My favourite composer is {}.",
        "Who is my favourite composer?",
        ("Ravel", "Haydn", "Verdi", "Chopin", "Holst"),
    ),
    ("My train leaves at {}.", "When does my train leave?", ("7:42", "9:15", "6:28", "8:51", "5:37")),
    (
        "The wifi in my house is named {}.",
        "What is the wifi in my house named?",
        ("Foxhole", "Lighthouse", "Beehive"),
    ),
    ("My boss is called {}.", "What is my boss called?", ("Ingrid", "Marcus", "Yolanda", "Pavel", "Noemi")),
    (
        "I keep my passport in the {}.",
        "Where do I keep my passport?",
        ("attic", "drawer", "garage", "safe", "cellar"),
    ),
    (
        "My next exam is in {}.",
        "What subject is my next exam in?",
        ("chemistry", "history", "algebra", "biology"),
    ),
)
FILLERS = (
    "How do I get a coffee stain out of a shirt?", "Give me a short recipe for pancakes.",
    "Why is the sky blue?", "What should I see in Rome in one day?", "How does a bicycle stay upright?",
    "Explain what inflation is.", "Write two sentences about autumn.", "How do I sharpen a kitchen knife?",
    "What is the difference between a frog and a toad?", "How can I fall asleep faster?",
    "What makes bread rise?", "Tell me about the moons of Jupiter.", "How do I plant tomatoes?",
    "What does a lighthouse keeper do?", "How are rainbows made?", "Why do cats purr?",
    "What is a good warm-up before running?", "How is paper recycled?", "What is the tallest mountain on Earth?",
    "How do I write a polite reminder by e-mail?", "What is jazz?", "How do magnets work?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation, and what is asked at its end."""

    exchanges: tuple[Exchange, ...]
    questions: tuple[tuple[str, str], ...]  # (question, what the answer must hold)


def run(quick: bool, progress: Progress) -> Figures:
    """Hold the conversations, then ask."""
    rights: dict[str, list[bool]] = {}
    lengths, windows = [], []
    with connect(attach=False) as kernel:
        for seed in TRIED[:1] if quick else SEEDS:
            talk = _hold(kernel, seed)
            length = sum(len(kernel.tokenizer.encode(f"{e.question}{e.answer}")) + 10 for e in talk.exchanges)
            pages = max(length // SHARE // PAGE_TOKENS, 1)
            lengths.append(length)
            windows.append(pages * PAGE_TOKENS)
            shown: list[str] = []
            for method, ask in _methods(kernel, talk, pages, shown.append).items():
                for question, wanted in talk.questions:
                    answer = ask(question)
                    rights.setdefault(f"recall_{method}", []).append(wanted.lower() in answer.lower())
            rights.setdefault("shown_paging", []).extend(
                wanted in window for (_, wanted), window in zip(talk.questions, shown, strict=True)
            )
            said = ", ".join(f"{name} {sum(of)} of {len(of)}" for name, of in rights.items())
            progress(f"conversation {seed}, {length} tokens: so far {said}")
        name = kernel.config.kernel.model
    values = {name: sum(of) / len(of) for name, of in rights.items()}
    values |= {
        "questions": len(rights["recall_paging"]),
        "conversation_tokens": sum(lengths) / len(lengths),
        "window_tokens": sum(windows) / len(windows),
    }
    return Figures(values, (name,))


def _hold(kernel: Kernel, seed: int) -> Talk:
    """Twenty turns with the model."""
    chance = random.Random(seed)
    told = [(fact, question, chance.choice(values)) for fact, question, values in chance.sample(FACTS, 5)]
    process = kernel.spawn()
    said = [f"Please note this down: {fact.format(value)}" for fact, _, value in told]
    said += chance.sample(FILLERS, TURNS - len(told))
    for text in said:
        _ = process.ask(text, max_tokens=SAID).answer
    talk = Talk(tuple(process.conversation), tuple((question, value) for _, question, value in told))
    process.close()
    return talk


def _methods(
    kernel: Kernel, talk: Talk, pages: int, show: Callable[[str], None]
) -> dict[str, Callable[[str], str]]:
    """How each asks; every question meets the conversation as it stood. `show` is told the windows of paging."""
    budget = pages * PAGE_TOKENS - ANSWER

    def ask(process: Process, question: str, messages: list[Message] | None = None) -> str:
        answer = process.ask(
            question if messages is None else "", messages=messages, max_tokens=ANSWER
        ).answer
        process.close()
        return answer

    def paging(question: str) -> str:
        process = kernel.spawn(quotas={"pages": pages})
        process.conversation = list(talk.exchanges)
        answer = ask(process, question)
        window = process.questions.window
        show("" if window is None else kernel.tokenizer.decode(window.tokens))
        return answer

    def whole(question: str) -> str:
        process = kernel.spawn()
        process.conversation = list(talk.exchanges)
        return ask(process, question)

    def fitting(question: str, head: Sequence[Message] = ()) -> list[Message]:
        """The last exchanges that fit behind `head`."""
        asked = Message.of("user", question)
        kept: list[Message] = []
        for e in reversed(talk.exchanges):
            more = [Message.of("user", e.question), Message.of("assistant", e.answer), *kept]
            if sum(map(len, kernel.prompt.segments([*head, *more, asked]))) > budget:
                break
            kept = more
        return [*head, *kept, asked]

    def sliding(question: str) -> str:
        return ask(kernel.spawn(), question, fitting(question))

    def truncation(question: str) -> str:
        text = "".join(f"User: {e.question}\nAssistant: {e.answer}\n" for e in talk.exchanges)
        head = sum(map(len, kernel.prompt.segments([Message.of("user", question + "\n\n")])))
        ids = kernel.tokenizer.encode(text)[-(budget - head - 4) :]
        cut = kernel.tokenizer.decode(ids)
        return ask(kernel.spawn(), question, [Message.of("user", f"{cut}\n\n{question}")])

    summaries: list[str] = []

    def summary(question: str) -> str:
        if not summaries:
            process = kernel.spawn()
            process.conversation = list(talk.exchanges)
            prompt = "Summarise this conversation in a few sentences. Keep every fact about me."
            summaries.append(process.ask(prompt, max_tokens=budget // 3).answer)
            process.close()
        head = Message.of("system", f"What was said before, in short: {summaries[0]}")
        return ask(kernel.spawn(), question, fitting(question, [head]))

    return {
        "paging": paging,
        "truncation": truncation,
        "sliding": sliding,
        "summary": summary,
        "whole": whole,
    }
