"""The scheduler alone: classes, fair shares, small steps for those who wait."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.scheduler import FLOOR, Priority, Scheduler, rank, victims


@dataclass(eq=False)
class Task:
    """Something that is behind; when it catches up it decodes for ever."""

    priority: Priority
    behind: int = 1
    arrival: int = 0
    vtime: float = -1.0
    served: int = 0


def step(
    scheduler: Scheduler, tasks: list[Task], budget: int = 64, latency: int = 16, rows: int = 64
) -> list[Task]:
    planned = scheduler.plan(tasks, budget, latency)[:rows]
    for task, count in planned:
        scheduler.charge(task, count)
        task.served += count
        task.behind = max(task.behind - count, 1)
    return [task for task, _ in planned]


def jain(shares: list[int]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


def test_more_tasks_than_rows_share_fairly() -> None:
    scheduler, tasks = Scheduler(), [Task(Priority.BATCH, arrival=i) for i in range(33)]
    for _ in range(2000):
        step(scheduler, tasks, rows=8)
    assert jain([t.served for t in tasks]) > 0.9999


def test_a_newcomer_cannot_spend_what_it_did_not_use() -> None:
    scheduler, old = Scheduler(), [Task(Priority.BATCH, arrival=i) for i in range(4)]
    for _ in range(500):
        step(scheduler, old, rows=2)
    late = Task(Priority.BATCH, arrival=9)
    before = [t.served for t in old]
    for _ in range(500):
        step(scheduler, [*old, late], rows=2)
    assert jain([late.served, *(t.served - b for t, b in zip(old, before, strict=True))]) > 0.999


def test_who_waits_for_a_word_gets_it_and_the_step_is_small() -> None:
    scheduler = Scheduler()
    prompts = [Task(Priority.BATCH, behind=1000, arrival=i) for i in range(8)]
    shell = Task(Priority.INTERACTIVE, arrival=99)
    for _ in range(50):
        planned = scheduler.plan([*prompts, shell], 512, 40)
        assert planned[0] == (shell, 1)
        assert sum(count for _, count in planned) <= 40
        assert len(planned) > 1, "what is left of the step goes to the others"


def test_alone_a_prompt_takes_the_whole_step() -> None:
    assert Scheduler().plan([Task(Priority.INTERACTIVE, behind=1000)], 512, 40)[0][1] == 512


def test_a_prompt_delays_no_word_of_its_class() -> None:
    prompt, words = Task(Priority.BATCH, behind=1000), [Task(Priority.BATCH, arrival=i) for i in range(1, 9)]
    planned = Scheduler().plan([prompt, *words], 64, 64)
    assert {id(t): count for t, count in planned} == {id(prompt): 56} | {id(word): 1 for word in words}


def test_words_of_a_crowd_do_not_keep_a_prompt_waiting() -> None:
    """Beside somebody who waits for each word a step is smaller than this crowd."""
    scheduler, shell = Scheduler(), Task(Priority.INTERACTIVE, arrival=99)
    crowd = [Task(Priority.BATCH, behind=24 + i % 8, arrival=i) for i in range(80)]
    for _ in range(10 * 80):
        step(scheduler, [*crowd, shell], budget=512, latency=40)
    assert jain([t.served for t in crowd]) > 0.999 and min(t.served for t in crowd) > 300
    late = Task(Priority.BATCH, behind=1000, arrival=100)
    for _ in range(100):
        step(scheduler, [*crowd, shell, late], budget=512, latency=40)
    assert late.served > 40, "its share, though it has no word yet"


def test_lower_classes_keep_a_floor() -> None:
    busy = Task(Priority.REALTIME, behind=10**6)
    low = [Task(Priority.BATCH, behind=10**6, arrival=1)]
    planned = {id(t): c for t, c in Scheduler().plan([busy, *low], 64, 64)}
    assert planned[id(low[0])] == 64 // FLOOR
    assert planned[id(busy)] == 64 - 64 // FLOOR


@given(
    st.lists(st.tuples(st.sampled_from(Priority), st.integers(1, 2000)), min_size=1, max_size=40),
    st.integers(8, 512),
    st.integers(8, 64),
)
def test_a_plan_keeps_its_budget_and_always_serves_somebody(
    given_: list[tuple[Priority, int]], budget: int, latency: int
) -> None:
    tasks = [Task(p, behind, arrival=i) for i, (p, behind) in enumerate(given_)]
    planned = Scheduler().plan(tasks, budget, latency)
    assert planned and all(0 < count <= task.behind for task, count in planned)
    assert sum(count for _, count in planned) <= budget
    assert len({id(t) for t, _ in planned}) == len(planned)


def test_pages_are_taken_from_the_lowest_class_and_the_latest() -> None:
    a, b, c = (
        Task(Priority.INTERACTIVE, arrival=3),
        Task(Priority.BATCH, arrival=1),
        Task(Priority.BATCH, arrival=2),
    )
    assert victims([a, b, c], Task(Priority.INTERACTIVE, arrival=0)) == [a, b, c]
    assert victims([a, b, c], b) == [c]
    assert rank(a) < rank(b) < rank(c)
