"""System 2: time turned into accuracy.

What: a turn that is given a budget (`ask(..., think="30s" | "8x" | 4000)`) looks at several answers before it gives
    one: branches of its own window, forked in the engine, judged by whatever can judge them.
Invariant: nothing is said, and nothing is journalled as said, before the choice is made; the choice is journalled
    before it is told. A branch makes no call of the process's; what judges it may only calculate or read. All that was
    thought is charged to the process, and its pages go when it is done.
Interface: the strategies, frozen dataclasses with one method `run(mind) -> Verdict`: `Think` (chooses by how hard the
    question looks), `SelfConsistency`, `BestOf`, `Tree`, `Revise`; what judges: `Sums`, `Makes`, `Examples`, `Judge`;
    `Budget`; `strategy_of`, `dump`, `load`.

    budget.py      how much, and how much is left      mind.py         what a strategy has in hand
    branches.py    windows forked and written on       answers.py      what an answer comes to
    verifiers.py   who judges                          trial.py        code against examples, in a sandbox
    strategies.py  answers compared                    tree.py         steps, with back-tracking
    choosing.py    easy or hard, and then what         confidence.py   how sure, calibrated
    execution.py   the turn                            forms.py        strategies as JSON
    candidates.py  branches, and what is made of them  quiet.py        calls that leave no trace
"""

from llmos.kernel.think.budget import Budget
from llmos.kernel.think.choosing import Think
from llmos.kernel.think.forms import dump, load, strategy_of
from llmos.kernel.think.strategies import BestOf, Revise, SelfConsistency
from llmos.kernel.think.tree import Tree
from llmos.kernel.think.verifiers import Examples, Judge, Makes, Sums

__all__ = [
    "BestOf",
    "Budget",
    "Examples",
    "Judge",
    "Makes",
    "Revise",
    "SelfConsistency",
    "Sums",
    "Think",
    "Tree",
    "dump",
    "load",
    "strategy_of",
]
