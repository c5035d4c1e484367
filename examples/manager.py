"""A manager and its workers: who is asked decides whom to ask. `python -m examples.manager`

The manager is granted `experts.ask`, by which a model asks another expert as it makes any call: the kernel spawns a
child with that expert's own instructions, documents and grants, charged to the manager, and gives the answer back.
Here the manager may ask two of the experts that ship; what they may do, it may not do itself.
"""

from __future__ import annotations

import llmos
from llmos.abi.events import Call, Result
from llmos.abi.machine import Machine

WORKERS = ("assistant", "librarian")
TOLD = """You lead experts. Ask the one who fits with experts.ask, then say its answer.
assistant: everyday questions, reckoning. librarian: what documents say."""
TASKS = ("Ask the assistant what 17 % of 2340 is.",)


def run(kernel: Machine, tasks: tuple[str, ...] = TASKS) -> list[str]:
    """The answer to each task."""
    grants = [f"experts.ask(name={worker})" for worker in WORKERS]
    manager = kernel.spawn(expert="manager", instructions=TOLD, grants=grants)
    answers = []
    for task in tasks:
        turn = manager.ask(task, max_tokens=200, tool_choice="required")
        for event in turn:
            match event:
                case Call(arguments=arguments):
                    print(f"  asks the {arguments['name']}: {arguments['question']}")
                case Result(text=text):
                    print(f"  hears: {text}")
        print(turn.answer)
        answers.append(turn.answer)
    manager.close()
    return answers


if __name__ == "__main__":
    with llmos.connect() as kernel:
        run(kernel)
