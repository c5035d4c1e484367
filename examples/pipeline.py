"""A pipeline: each process works on what the one before it made. `python -m examples.pipeline`

The stages are experts with one task each: take the facts out, put them into order, write them up. What passes between
them keeps its label: words of a stranger that went in at the front are a stranger's words at the end.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

import llmos
from llmos.abi.labels import UNTRUSTED, Label
from llmos.abi.machine import Machine

MAIL = """Hi all, quick update. The hall is booked for 14 June, 200 seats. Anna pays the deposit of 300 euros by Friday.
Catering is still open, Ben asks two firms. Oh, and the band cancelled!"""


class Facts(BaseModel):
    """What a text says, one fact an entry."""

    done: list[str] = Field(max_length=3)
    open: list[str] = Field(max_length=3)


def run(kernel: Machine, text: str = MAIL, label: Label = UNTRUSTED) -> str:
    """The text, written up."""
    stages = {
        "reader": "You take facts out of messages, in few words each: what is done, and what is still open.",
        "editor": "You write one short paragraph from a list of facts, and add nothing.",
    }
    reader, editor = (kernel.spawn(expert=name, instructions=told) for name, told in stages.items())
    facts = reader.ask(f"Take the facts out:\n\n{text}", returns=Facts, max_tokens=160, label=label).value
    print("done:", "; ".join(facts.done), "\nopen:", "; ".join(facts.open))
    listed = "\n".join(["Done:", *facts.done, "Still open:", *facts.open])
    written = editor.ask(listed, max_tokens=120, label=label).answer
    print(written)
    for process in (reader, editor):
        process.close()
    return written


if __name__ == "__main__":
    with llmos.connect() as kernel:
        run(kernel)
