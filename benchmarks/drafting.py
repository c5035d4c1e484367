"""Drafting on grounded answers: tokens a second with it and without, and llama.cpp's on the same windows.

What: the demo's questions, greedy, each answered with drafting and without from the same window, in turn. Keys
    `drafting_ratio` (decoding with over without, all answers together), `drafting_identical` (1: every answer has
    the same tokens), `accepted` (share of drafted tokens that came true), `ours`, `plain`, `llama_cpp` (tokens a
    second), `ratio` (ours with drafting over llama.cpp's), and `free_text_ratio`: the same on text that repeats
    nothing, which must not fall below 0.98.
Invariant: one run, A B A B; times count from an answer's first token to its last.
Interface: `run`.
"""

from __future__ import annotations

import time

from benchmarks import llama
from benchmarks.figures import Figures, Progress, models
from benchmarks.llama import filler
from examples.demo.corpus import policy_manual
from examples.demo.questions import questions
from llmos import connect
from llmos.abi.labels import USER
from llmos.connect import load_config
from llmos.kernel.engine.grammar import PlainText
from llmos.kernel.engine.sampling import Randomness, Sample
from llmos.kernel.engine.sequence import Request
from llmos.kernel.execution import Asking
from llmos.kernel.grounding import answer_grammar
from llmos.kernel.kernel import Kernel
from llmos.kernel.layout import Layout

MODEL = "qwen2.5-coder-0.5b"
LONGEST = 160  # tokens of an answer


def answer(kernel: Kernel, question: str, layout: Layout, draft: int) -> tuple[list[int], float]:
    """One answer's tokens, and the seconds from the first to the last."""
    plain = PlainText(kernel.control_ids, kernel.runner.vocab)
    stream = kernel.engine.submit(
        Request(
            tokens=layout.tokens, max_tokens=LONGEST, stop=kernel.tokenizer.eos_ids, draft=draft,
            grammar=answer_grammar(question, layout.passages, kernel.tokenizer, plain), labels=layout.labels,
        )
    )  # fmt: skip
    tokens, first = [], 0.0
    for item in stream:
        first = first or time.perf_counter()
        tokens.append(item.id)
    return tokens, time.perf_counter() - first


def free_text(kernel: Kernel, draft: int, seed: int) -> float:
    """Seconds of 124 tokens after a prompt of noise: drawn, for the likeliest ones soon go round in circles."""
    prompt = tuple(filler(128, seed=seed))
    request = Request(
        tokens=prompt, max_tokens=128, draft=draft, strategy=Sample(), randomness=Randomness(seed=seed)
    )
    times = [time.perf_counter() for _ in kernel.engine.submit(request)]
    return times[-1] - times[3]


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    config = load_config(model=MODEL)
    asked = questions()[:: 4 if quick else 1]
    rounds = 1 if quick else 3
    with connect(config, attach=False) as kernel:
        process = kernel.spawn(mounts=[policy_manual(config.machine.cache)])
        layouts = [process.view.lay_out(q.text, USER, Asking()) for q in asked]
        longest = Request(tokens=(1,), max_tokens=1).draft
        spent = {0: 0.0, longest: 0.0}
        counted = identical = 0
        for question, layout in zip(asked, layouts, strict=True):
            answer(kernel, question.text, layout, 0)  # the window's pages are there from now on
            for _ in range(rounds):
                found = {}
                for draft in spent:
                    found[draft], seconds = answer(kernel, question.text, layout, draft)
                    spent[draft] += seconds
                identical += found[0] == found[longest]
                counted += len(found[0]) - 1
            progress(f"{question.id}: {spent[0] / max(spent[longest], 1e-9):.2f}")
        noise = dict.fromkeys(spent, 0.0)
        for seed in range(2 + 2 * rounds):
            turns = [{draft: free_text(kernel, draft, seed) for draft in spent} for _ in range(rounds)]
            for draft in spent:
                noise[draft] += min(turn[draft] for turn in turns)
        values = {
            "drafting_ratio": spent[0] / spent[longest],
            "drafting_identical": float(identical == len(asked) * rounds),
            "ours": counted / spent[longest],
            "plain": counted / spent[0],
            "free_text_ratio": noise[0] / noise[longest],
        }
        if llama.installed():
            with llama.Llama(models(quick=True)[MODEL], llama.Settings(), context=2304) as theirs:
                llama.best(theirs, lambda side: side.decode(512, 12), llama.grid(ubatches=(512,)))
                values["llama_cpp"] = theirs.decode(max(len(x.tokens) for x in layouts), 48)
            values["beside_llama_cpp"] = values["ours"] / values["llama_cpp"]
    return Figures(values, (MODEL,))
