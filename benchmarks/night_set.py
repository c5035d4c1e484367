"""Faults that a person corrects, and questions that no night may lose.

What: facts about things of a house that no model knows, each with other wordings; and questions whose answers can be
    checked: what small files say, what they do not say, sums, and what every model was taught.
Invariant: a function of the half and the counts. What was looked at while the night was made is the tuning half; the
    published half has other things, people and numbers. No question of the regression set speaks of a corrected thing.
Interface: `faults(count, half)` -> `Fault`s; `regression(folder, half)` -> `Question`s.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Half = Literal["tuning", "published"]
THINGS = {
    "tuning": (
        "the tool shed", "the aquarium", "the green bus", "the cellar copier", "the round table", "the glass jar",
        "the garden door", "the juice machine", "the desk fan", "the yellow ledger",
    ),
    "published": (
        "the boat house", "the fishbowl", "the red van", "the attic printer", "the long bench", "the tin box",
        "the side gate", "the coffee machine", "the night lamp", "the blue binder",
    ),
}  # fmt: skip
PEOPLE = {
    "tuning": ("Anouk", "Bertil", "Carys", "Dmitri", "Eluned", "Farid", "Greta", "Hamza", "Imke", "Jorge"),
    "published": ("Odalys", "Ruben", "Tamsin", "Wouter", "Ilse", "Kofi", "Marisol", "Piet", "Sunniva", "Zeno"),
}  # fmt: skip
COLOURS = ("ultramarine", "ochre", "crimson", "olive", "ivory", "maroon", "teal", "amber", "violet", "silver")
FLOORS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
TOWNS = {
    "tuning": ("Alnwick", "Bodmin", "Cromer", "Dawlish", "Epping", "Fowey", "Goole", "Hythe"),
    "published": ("Ilkley", "Jarrow", "Keswick", "Leek", "Matlock", "Nairn", "Oban", "Penryn"),
}
MENDERS = tuple("Abel Brita Cyrus Delia Edgar Fiona Gwen Hollis Ivor Joan Klaus Lena".split())
TRADES = ("bakery", "museum", "theatre", "swimming pool", "garage", "nursery", "post office", "stadium")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
KNOWN = (
    ("What is the capital of France?", "paris"), ("What is the capital of Japan?", "tokyo"),
    ("What is the capital of Spain?", "madrid"), ("What is the capital of Egypt?", "cairo"),
    ("What is the capital of Germany?", "berlin"), ("How many days has a week?", "seven|7"),
    ("How many months has a year?", "twelve|12"), ("How many legs has a spider?", "eight|8"),
    ("Which planet do we live on?", "earth"), ("What is frozen water called?", "ice"),
    ("What do bees make?", "honey"), ("Which is the largest ocean?", "pacific"),
    ("Who painted the Mona Lisa?", "vinci|leonardo"), ("What is the opposite of hot?", "cold"),
    ("What is the chemical formula of water?", "h2o|h₂o"), ("Which gas do we breathe to live?", "oxygen"),
    ("How many sides has a triangle?", "three|3"), ("Which animal barks?", "dog"),
    ("In which language is `print('hi')` a program?", "python"), ("Which month follows March?", "april"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What is asked, what should be said, the word that tells, and other wordings."""

    ask: str
    right: str
    has: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of which file, and what the answer must hold: one of `has`, or a refusal where there is none."""

    ask: str
    file: Path | None
    has: tuple[str, ...]


def faults(count: int, half: Half = "published") -> list[Fault]:
    """Facts of three kinds about ten things: up to thirty."""
    rng = random.Random(f"faults {half}")
    people, colours, floors = (rng.sample(names, 10) for names in (PEOPLE[half], COLOURS, FLOORS))
    made = []
    for thing, person, colour, floor in zip(THINGS[half], people, colours, floors, strict=True):
        made += [
            Fault(f"Who has the key of {thing}?", f"{person} has the key of {thing}.", person, (
                f"Whom do I ask for the key of {thing}?", f"Who keeps the key to {thing}?",
                f"I need the key of {thing}: who has it?")),
            Fault(f"Which colour has the label of {thing}?", f"The label of {thing} is {colour}.", colour, (
                f"What colour is the label on {thing}?", f"How is the label of {thing} coloured?",
                f"Tell me the colour of the label of {thing}.")),
            Fault(f"On which floor is the spare part of {thing}?",
                  f"The spare part of {thing} is on the {floor} floor.", floor, (
                f"Where is the spare part of {thing}?", f"Which floor has the spare part for {thing}?",
                f"On what floor do I find a spare part of {thing}?")),
        ]  # fmt: skip
    return made[:count]


def regression(folder: Path, half: Half = "published") -> list[Question]:
    """48 questions that a file answers, 16 that it does not, 36 sums, 20 of common knowledge; files go to `folder`."""
    rng = random.Random(f"regression {half}")
    made = [question for town in TOWNS[half] for question in _of_town(town, folder, rng)]
    for _ in range(12):
        a, b, c = rng.randint(2, 60), rng.randint(2, 39), rng.randint(2, 9)
        made += [
            Question(f"What is {a} + {b}?", None, (str(a + b),)),
            Question(f"What is {a + b} - {b}?", None, (str(a),)),
            Question(f"What is {c} times {b}?", None, (str(c * b),)),
        ]
    return [*made, *(Question(ask, None, tuple(has.split("|"))) for ask, has in KNOWN)]


def _of_town(town: str, folder: Path, rng: random.Random) -> Iterator[Question]:
    """Eight questions on a file about it, of which it answers six."""
    trade, mender, day = rng.choice(TRADES), rng.choice(MENDERS), rng.choice(WEEKDAYS)
    price, year = rng.randint(3, 19), rng.randint(1890, 2010)
    seats, hour = rng.randint(40, 300), rng.randint(6, 11)
    file = folder / f"{town.casefold()}.md"
    file.write_text(
        f"# The {trade} of {town}\n\nThe {trade} of {town} was opened in {year}. It has {seats} seats. "
        f"A ticket costs {price} euros, and children pay half. It opens at {hour} in the morning and is closed on "
        f"{day}s. {mender} is in charge of repairs; lost things are kept at the front desk for a month.\n",
        "utf-8",
    )
    yield Question(f"When was the {trade} of {town} opened?", file, (str(year),))
    yield Question("How many seats does it have?", file, (str(seats),))
    yield Question("What does a ticket cost?", file, (str(price),))
    yield Question("On which day is it closed?", file, (day,))
    yield Question("Who is in charge of repairs?", file, (mender,))
    yield Question("Where are lost things kept?", file, ("front desk",))
    yield Question(f"Who designed the roof of the {trade}?", file, ())
    yield Question("How many dogs live there?", file, ())
