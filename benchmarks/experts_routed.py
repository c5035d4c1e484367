"""Questions for the router: who ought to be asked, and what an answer has to hold.

What: questions as people ask them, of seven kinds, with the expert (or those) whose they are; some with a pattern of a
    right answer, which are asked for good. Beside the experts that ship there is one of the house, `handbook`, made as
    a user would make it.
Invariant: nothing was chosen on them: what experts say of themselves was written before, and looked at with the
    questions of their own tests.
Interface: `QUESTIONS`, `handbook(folder) -> file`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmos.apps.experts.shelf import SHIPPED

HANDBOOK = """expert: handbook
description: Answers from the house's handbook - leave and illness, notice, expenses, passwords, rooms, the canteen.
extends: librarian
knowledge: [{path: %s, trust: mine}]
starters: ["How many days of leave do we have?", "Who approves expenses?"]
"""


def handbook(folder: Path) -> Path:
    """The file of an expert that answers from documents."""
    file = folder / "handbook.yaml"
    file.write_text(HANDBOOK % (SHIPPED / "librarian/tests/house"), encoding="utf-8")
    return file


@dataclass(frozen=True, slots=True)
class Routed:
    """A question, whom it should go to, and a pattern of its answer ("": it is not asked)."""

    text: str
    experts: tuple[str, ...]
    right: str = ""


def _of(*experts: str) -> list[Routed]:
    return [Routed(text, experts, right) for text, right in _QUESTIONS[experts]]


_QUESTIONS: dict[tuple[str, ...], list[tuple[str, str]]] = {
    ("assistant",): [
        ("What is the capital of Portugal?", "Lisbon"),
        ("Which animal is the largest on earth?", "whale"),
        ("Say in one sentence why the sky is blue.", ""),
        ("Make this sentence more polite: give me the report.", ""),
        ("What is the opposite of generous?", ""),
        ("Translate into French: see you tomorrow.", ""),
        ("Give me three words that rhyme with light.", ""),
        ("How much is 18 * 37 + 4?", r"\b670\b"),
        ("What is 12.5 % of 640?", r"\b80\b"),
        ("What is the cube root of 729?", ""),
        ("How much is 2000 divided by 16?", ""),
        ("What do 7 tickets at 12.50 euros cost?", ""),
        ("How many minutes are 3.5 hours?", ""),
    ],
    ("handbook", "librarian"): [
        ("How long is the notice period in the first six months?", r"two weeks"),
        ("How many people fit into the room Compass?", r"\b20\b"),
        ("Does the house pay for first class on the train?", ""),
        ("What does the handbook say about parental leave?", ""),
        ("Until when must a sick employee tell the team lead?", ""),
        ("Where do we meet after a fire alarm?", ""),
        ("How often are passwords changed?", ""),
    ],
    ("analyst",): [
        ("Use Python to find the median of 4, 8, 15, 16, 23 and 42.", r"15\.5"),
        ("Plot 3, 5 and 8 as bars with matplotlib and save them as bars.png.", r"bars\.png|saved"),
        ("Draw a bar chart of the column revenue in orders.csv.", ""),
        ("What is the average of the column age in people.csv?", ""),
        ("How many rows of orders.csv have a total above 100?", ""),
        ("Which month of visits.csv has the most visitors?", ""),
        ("Fit a straight line to the points in lab.csv.", ""),
    ],
    ("researcher",): [
        ("Open {site}/museum.html and say when the guided tours begin.", "noon"),
        ("Search the web for the lighthouse of Sundvik.", "Ostrom|34|harbour"),
        ("What is in the news about solar power today?", ""),
        ("Look up on the web who invented the zip fastener.", ""),
        ("Read the page {site}/contact and tell me the telephone number.", ""),
        ("Note that the boiler is serviced in March.", ""),
        ("What did I ask you to remember about the boiler?", ""),
    ],
    ("coder",): [
        ("Write a Python function that counts the vowels in a word.", r"def \w+\("),
        ("Write an SQL query that lists the ten newest orders.", r"SELECT"),
        ("Why does this fail: x = [1, 2, 3; print(x)", ""),
        ("What does the keyword yield do in Python?", ""),
        ("Turn this loop into a list comprehension: for x in xs: ys.append(x + 1)", ""),
        ("Write a shell script that renames all .jpeg files to .jpg.", ""),
        ("Explain what this regular expression matches: ^[a-z]+$", ""),
    ],
    ("operator",): [
        ("Stop process 5.", ""),
        ("Is anything else still running on this machine?", ""),
    ],
}  # fmt: skip

QUESTIONS = tuple(question for experts in _QUESTIONS for question in _of(*experts))
