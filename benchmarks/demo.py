"""Answers to the demo's 20 questions: how many are right, rightly cited, and how many citations are right.

What: asks every question of `examples/demo/questions.yaml` with the default model, greedy, each in an empty
    conversation, and checks the answers by the patterns of that file.
Invariant: the answers are judged as a user gets them. `rightly_cited` counts answers that are right and name a
    passage which states the answer; `citation_precision` is over all citations of all answers.
Interface: `run(quick, progress)`; `--quick` asks five of them.
"""

from __future__ import annotations

import statistics

from benchmarks.figures import Figures, Progress
from examples.demo.corpus import policy_manual
from examples.demo.questions import draw, questions, right, right_citations
from llmos import connect
from llmos.connect import load_config


def run(quick: bool, progress: Progress) -> Figures:
    config = load_config()
    asked = draw(0, 5) if quick else questions()
    rights = rightly = cited = precise = dropped = 0
    first_token_s, prompt_tokens = [], []
    wrong = []
    with connect(config, attach=False) as kernel:
        progress("mounting the policy manual")
        process = kernel.spawn(mounts=[policy_manual(config.machine.cache)])
        for question in asked:
            process.forget()
            turn = process.ask(question.text)
            good = right_citations(question, turn.citations)
            is_right = right(question, turn.answer)
            rights += is_right
            rightly += is_right and bool(good)
            cited += len(turn.citations)
            precise += len(good)
            dropped += turn.usage.citations_dropped
            first_token_s.append(turn.timings.first_token_s)
            prompt_tokens.append(turn.usage.prompt_tokens)
            verdict = "rightly cited" if is_right and good else "right" if is_right else "wrong"
            progress(f"{question.id}: {verdict}: {turn.answer}")
            if not (is_right and good):
                wrong.append(f"{question.id} ({verdict}): {turn.answer}")
    return Figures(
        {
            "questions": len(asked),
            "right": rights,
            "rightly_cited": rightly,
            "citation_precision": precise / cited if cited else 0.0,
            "citations": cited,
            "citations_dropped": dropped,
            "first_token_s": statistics.median(first_token_s),
            "prompt_tokens": statistics.mean(prompt_tokens),
        },
        models=(config.kernel.model,),
        notes=tuple(wrong),
    )
