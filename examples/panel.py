"""A panel of three and a judge: the same question three times, and one who picks. `python -m examples.panel`

Three processes answer side by side, each with instructions and random bits of its own; the judge reads the answers and
names the best by its number, which the grammar makes a number from 1 to 3. Nobody knows the others' answers.
"""

from __future__ import annotations

from typing import Literal

import llmos
from llmos.abi.machine import Machine

QUESTION = "Why do ships float although they are made of steel?"
PANEL = {
    "physicist": "You are a physicist. Answer in one sentence, with the principle by its name.",
    "teacher": "You are a teacher of children. Answer in one sentence that a child of eight understands.",
    "engineer": "You are a naval engineer. Answer in one sentence, from practice.",
}


def run(kernel: Machine, question: str = QUESTION) -> tuple[str, str]:
    """The name and the answer of the best."""
    panel = {name: kernel.spawn(expert=name, instructions=told) for name, told in PANEL.items()}
    turns = {
        name: process.ask(question, max_tokens=80, temperature=0.7, seed=seed, detached=True)
        for seed, (name, process) in enumerate(panel.items())
    }
    answers = {name: turn.answer for name, turn in turns.items()}
    for name, answer in answers.items():
        print(f"{name}: {answer}")
    listed = "\n".join(f"{n}. {answer}" for n, answer in enumerate(answers.values(), start=1))
    judge = kernel.spawn(
        expert="judge", instructions="You judge answers. Choose the one that is right and clear."
    )
    best = judge.ask(
        f"Question: {question}\n\n{listed}\n\nWhich answer is the best? Say its number.",
        returns=Literal[1, 2, 3], max_tokens=4,
    ).value  # fmt: skip
    winner = list(answers)[best - 1]
    print(f"the judge chose the {winner}")
    for process in (*panel.values(), judge):
        process.close()
    return winner, answers[winner]


if __name__ == "__main__":
    with llmos.connect() as kernel:
        run(kernel)
