"""A fan-out over forks: read a text once, ask many things about it at once. `python -m examples.fan_out`

A fork knows what its parent knows and shares the pages of its window, so the text is computed once for all of
them. Their answers are decoded together, step by step, and each is of the type that was asked for.
"""

from __future__ import annotations

import llmos
from llmos.abi.machine import Machine

LEASE = """The flat in Harbour Street 12 has 3 rooms and 64 square metres. The rent is 840 euros a month, paid by the
third day of each month. The deposit is 2520 euros. Either side may end the lease with 6 months' notice. Two cats
are allowed."""

QUESTIONS = {
    "rent": "How many euros is the rent?",
    "deposit": "How many euros is the deposit?",
    "size": "How many square metres does the flat have?",
    "rooms": "How many rooms does the flat have?",
    "cats": "How many cats are allowed?",
}


def run(kernel: Machine) -> dict[str, int]:
    """The answer to every question."""
    reader = kernel.spawn(expert="reader")
    _ = reader.ask(f"Here is a lease:\n\n{LEASE}\n\nSay only: yes, I have read it.", max_tokens=12).result
    children = reader.fork(len(QUESTIONS))
    turns = {
        name: child.ask(question, returns=int, max_tokens=8)
        for (name, question), child in zip(QUESTIONS.items(), children, strict=True)
    }
    answers = {name: turn.value for name, turn in turns.items()}
    for name, turn in turns.items():
        print(
            f"{name:8} {answers[name]:5}   ({turn.usage.cached_tokens} of {turn.usage.prompt_tokens} tokens shared)"
        )
    reader.close()
    return answers


if __name__ == "__main__":
    with llmos.connect() as kernel:
        run(kernel)
