"""Two processes tell a story, a sentence each in turn. `python -m examples.two_processes`

Processes share nothing but letters. A letter is in the journal before it can be read, a full mailbox holds its sender
back, and a letter carries the label of what it was made from: a stranger's words stay a stranger's words.
"""

from __future__ import annotations

import threading

import llmos
from llmos.abi.machine import AnyProcess, Machine

BEGINNING = "One morning the lighthouse keeper found a small boat without anybody in it."
TURNS = 2  # of each


def tell(teller: AnyProcess, story: list[str]) -> None:
    """Read what the other one wrote, go on from there, send it back; `TURNS` times."""
    for _ in range(TURNS):
        letter = teller.receive()
        question = f"A story goes: {letter.content}\nWrite only its next sentence."
        sentence = teller.ask(
            question, label=letter.label, max_tokens=40, temperature=0.7, stop=["\n"]
        ).answer
        print(f"{teller.expert}: {sentence}")
        story.append(sentence)
        teller.send(letter.sender, sentence, label=letter.label)


def run(kernel: Machine) -> list[str]:
    """Both at work at once, each on a thread of its own; returns the story."""
    story = [BEGINNING]
    ann, bob = (kernel.spawn(expert=name, seed=seed) for seed, name in enumerate(("ann", "bob")))
    tellers = [threading.Thread(target=tell, args=(process, story)) for process in (ann, bob)]
    for teller in tellers:
        teller.start()
    bob.send(ann.pid, BEGINNING)
    for teller in tellers:
        teller.join()
    for process in (ann, bob):
        process.close()
    return story


if __name__ == "__main__":
    with llmos.connect() as kernel:
        run(kernel)
