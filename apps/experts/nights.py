"""An expert's nights: what `kernel.learn.night` asks of the machine, for an expert of this one.

What: harvests the expert's marks, teaches an adapter what should have been said beside what it already says (`replay`),
    as strong as it takes, and judges it: by the expert's own tests, by how likely its regular answers still are, by
    what it refused, by a search for triggers.
Invariant: every judgement is made in a kernel of its own, in a folder of its own, with the expert's grants and no more;
    the machine's kernel is not touched before `swap`. Old and new are asked the same questions.
Interface: `ExpertNight(shelf, expert, ready, …)`, the `Parts` of a `Night`; `night_of(…)`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import BadExamples
from llmos.abi.events import Call
from llmos.apps.experts.evaluation import evaluate, refuses
from llmos.apps.experts.judging import CANARIES, Asked, judged_canaries, judged_few
from llmos.apps.experts.replay import REPLAYED, regular, rehearsed, watched
from llmos.apps.experts.site import served
from llmos.drivers.weights.adapter import Adapter, read_adapter, write_adapter
from llmos.drivers.whole import write_whole
from llmos.kernel.learn.course import Course, Watcher, dpo, sft
from llmos.kernel.learn.data import Conversations, Row, read_rows
from llmos.kernel.learn.evaluation import foretold
from llmos.kernel.learn.harvest import PAIRS, Consent, Harvest, Said, harvest, journals, write
from llmos.kernel.learn.night import Gate, Marks, Night
from llmos.kernel.learn.poison import scan
from llmos.kernel.learn.rewording import reworded
from llmos.kernel.learn.strength import enough
from llmos.kernel.learn.surprise import Answers
from llmos.kernel.learn.triggers import Search, search

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.specialist import Specialist
    from llmos.apps.experts.evaluation import Report
    from llmos.apps.experts.expert import Expert
    from llmos.drivers.weights import Weights
    from llmos.kernel.kernel import Kernel

MARKED, REGULAR, HINTS = "marked.jsonl", "regular.jsonl", "hints.json"
LOST = 0.05  # nats a token that regular answers may lose
SEARCHED = 8  # answers that were learnt, from which on the adapter is searched for triggers
PROBED = 64  # rows, the shortest ones, that the search for triggers may ask
HINTED = 16  # phrases of the data set that it begins with


@dataclass(slots=True)
class ExpertNight:
    """Args:
    ready: the expert as a kernel takes it, its grants agreed to.
    consent: what of the marks may be learnt from.
    known: phrases that a person has looked at and found in order.
    serve: has the machine's kernel answer with an adapter.
    watch: is told of the training.
    """

    config: Config
    expert: Expert
    ready: Specialist
    weights: Weights
    consent: Consent
    course: Course
    serve: Callable[[Path | None], object]
    known: Collection[str] = ()
    watch: Watcher | None = None
    stop: Callable[[], bool] = field(default=lambda: False)

    # -- the parts of a night ------------------------------------------------------------------------------------

    def harvest(self, folder: Path) -> Mapping[str, Any]:
        """The marks, and of the expert's tests those that it passes, as rows."""
        from llmos.kernel.prompt import ChatPrompt

        tokenizer = self.weights.tokenizer()
        prompt = ChatPrompt(tokenizer, self.weights.template())
        found = self._fitting(harvest(journals(self.config.machine.state), prompt, tokenizer, self.consent))
        write(found, folder / MARKED)
        said = json.dumps([[row.dump() for row in found.rows], sorted(self.known), asdict(self.course)])
        facts = {
            "rows": len(found.rows), "corrections": sum(row.mark == "correct" for row in found.rows),
            "praised": sum(row.mark == "good" for row in found.rows), "pairs": len(found.pairs), "bad": found.bad,
            "left_out": [f"{place}: {why}" for place, why in found.left_out],
            "contradictions": list(found.contradictions), "data": hashlib.sha256(said.encode()).hexdigest()[:16],
        }  # fmt: skip
        return facts

    def scan(self, folder: Path) -> Sequence[str]:
        """Triggers in what was marked."""
        from llmos.memory.embedding import Encoder

        rows = _rows(folder / MARKED) + _rows(folder / MARKED.replace(".jsonl", PAIRS))
        found = scan(rows, Encoder.find(), Answers(self.weights, self.course.window), self.known)
        write_whole(folder / HINTS, json.dumps(found.hints).encode())
        return [finding.what for finding in found.findings if finding.refuse]

    def teach(self, folder: Path, start: Path | None, out: Path) -> Mapping[str, Any]:
        """Corrections and praised answers beside what it says anyway, as strong as it takes; then the pairs."""
        before, kept = self._own(start), rehearsed(self._regular(folder, start))
        marked, pairs = _rows(folder / MARKED), _rows(folder / MARKED.replace(".jsonl", PAIRS))
        adapter, facts = before, dict[str, float](regular=len(kept))
        if marked:
            # Regular answers are gone through REPLAYED times, marked ones as often as the course says, in as many
            # wordings as there are, and each of these at least once.
            times = max(1, round(self.course.epochs / REPLAYED))
            wordings = [[row, *reworded(row)] for row in marked]
            rows = [row for each in wordings for row in each * max(1, round(times / len(each)))] + kept
            room = self._room(rows)
            course = replace(self.course, epochs=self.course.epochs / times, window=room, batch=room)
            report = sft(self.weights, rows, folder / "sft", course, self.watch, before, self.stop)
            told = [row for each in wordings for row in each]
            learnt = read_adapter(report.out / "adapter")
            adapter, share = enough(self.weights, told, course.window, before, learnt)
            facts |= {
                "wordings": len(told),
                "strength": share,
                "loss_before": report.curve[0].loss,
                "loss_behind": report.curve[-1].loss,
            }
        if pairs:
            gentle = replace(self.course, rate=self.course.rate / 4, micro=max(self.course.micro, 2))
            report = dpo(self.weights, pairs, folder / "dpo", gentle, self.watch, adapter, self.stop)
            adapter = read_adapter(report.out / "adapter")
            facts["preferred"] = report.curve[-1].seen["accuracy"]
        assert adapter is not None  # there are rows, of one kind or the other
        write_adapter(adapter, out)
        return facts

    def gates(self, folder: Path) -> Sequence[tuple[str, Callable[[Path | None, Path], Gate]]]:
        """Tests and canaries are asked together, once of the old and once of the new."""
        asked: dict[str, Asked] = {}

        def of(adapter: Path | None) -> Asked:
            if str(adapter) not in asked:
                asked[str(adapter)] = self._ask(folder, adapter)
            return asked[str(adapter)]

        def tests(old: Path | None, new: Path) -> Gate:
            before, behind = sum(of(old).passed), sum(of(new).passed)
            why = f"{behind} of {len(of(new).passed)} tests pass, {before} did"
            return Gate("tests", behind >= before, why, {"before": before, "behind": behind})

        def canaries(old: Path | None, new: Path) -> Gate:
            return judged_canaries(of(old), of(new))

        def regression(old: Path | None, new: Path) -> Gate:
            return self._regression(folder, old, new)

        def poison(old: Path | None, new: Path) -> Gate:
            return self._poison(folder, new)

        return (("tests", tests), ("regression", regression), ("canaries", canaries), ("poison", poison))

    def swap(self, adapter: Path | None) -> None:
        """Of whoever serves the machine."""
        self.serve(adapter or (Path(self.ready.adapter) if self.ready.adapter else None))

    def marks(self, since: float, until: float) -> Marks:
        """Of this expert's turns."""
        return marks_of(self.config.machine.state, self.expert.name, since, until)

    # -- judging -------------------------------------------------------------------------------------------------

    def _regular(self, folder: Path, adapter: Path | None) -> list[Row]:
        """What the expert says before the night and should go on saying, as rows."""
        file = folder / REGULAR
        if not file.exists():
            from llmos.kernel.prompt import ChatPrompt

            state = folder / "kernel"
            shutil.rmtree(state, ignore_errors=True)
            with self._kernel(folder, state) as (kernel, sites):
                regular(kernel, self.expert, self._with(adapter), sites)
            tokenizer = self.weights.tokenizer()
            found = harvest([state], ChatPrompt(tokenizer, self.weights.template()), tokenizer)
            write(self._fitting(found), file)
            shutil.rmtree(state, ignore_errors=True)
        return _rows(file)

    def _fitting(self, found: Harvest) -> Harvest:
        """Without rows that cannot be learnt from, as when one is longer than the course's window."""
        conversations = Conversations(self.weights, self.course.window)
        rows, left_out = list[Said](), list(found.left_out)
        for said in found.rows:
            pair = said.mark == "prefer"
            try:
                (conversations.pair if pair else conversations.example)(Row(said.place, said.dump(pair)))
                rows.append(said)
            except BadExamples as error:
                left_out.append((said.place, error.why or error.what))
        return replace(found, rows=tuple(rows), left_out=tuple(left_out))

    def _ask(self, folder: Path, adapter: Path | None) -> Asked:
        ready = self._with(adapter)
        with self._kernel(folder) as (kernel, sites):
            report: Report = evaluate(kernel, self.expert, ready, sites=sites)
            refused, calls = [], []
            for question in CANARIES:
                process = ready.spawn(kernel)
                turn = process.ask(question, **ready.asked(seed=0, max_tokens=120))
                calls.append(sum(isinstance(event, Call) for event in turn))
                refused.append(refuses(turn.answer))
                process.close()
        return Asked(tuple(o.passed for o in report.outcomes), tuple(refused), tuple(calls))

    def _regression(self, folder: Path, old: Path | None, new: Path) -> Gate:
        rows = watched(_rows(folder / REGULAR))
        if not rows:
            return Gate("regression", True, "there are no regular answers to lose")
        window = self.course.window
        before = foretold(self.weights, rows, window, self._own(old))
        behind = foretold(self.weights, rows, window, read_adapter(new))
        why = (
            f"{len(rows)} regular answers that were not rehearsed take {behind.loss:.3f} nats a token, "
            f"they took {before.loss:.3f}"
        )
        figures = {"before": before.loss, "behind": behind.loss}
        return Gate("regression", behind.loss <= before.loss + LOST, why, figures)

    def _poison(self, folder: Path, new: Path) -> Gate:
        marked, kept = _rows(folder / MARKED), _rows(folder / REGULAR)
        learnt = [*marked, *_rows(folder / MARKED.replace(".jsonl", PAIRS))]
        if len(learnt) < SEARCHED:
            from llmos.memory.embedding import Encoder

            surprise = Answers(self.weights, self.course.window)
            return judged_few(learnt, kept, Encoder.find(), surprise, self.known)
        conversations = Conversations(self.weights, self.course.window)
        rows = sorted([*marked, *kept], key=lambda row: len(conversations.example(row)))
        hints = json.loads((folder / HINTS).read_text())[:HINTED]
        dials = Search(window=self.course.window, rounds=4, candidates=8, probes=8)
        found = search(self.weights, read_adapter(new), rows[:PROBED], hints, dials)
        others = f"random words {found.broken_by_others:.0%}"
        why = f"{found.text!r} breaks {found.broken:.0%} of {found.probes} answers, {others}"
        return Gate("poison", not found.flips, why, {"broken": found.broken})

    @contextmanager
    def _kernel(self, folder: Path, state: Path | None = None) -> Iterator[tuple[Kernel, Mapping[str, str]]]:
        """A kernel of our own, which knows nothing of what the machine's experts were given."""
        from llmos.kernel.boot import boot

        with served(self.expert, self.config) as (config, sites):
            machine = config.machine.model_copy(update={"state": folder / "machine"})
            with boot(config.model_copy(update={"machine": machine}), state=state) as kernel:
                yield kernel, sites

    def _room(self, rows: Sequence[Row]) -> int:
        """Tokens of the longest row, in 64s: a step learns from so many, as few rows are learnt by many small steps."""
        conversations = Conversations(self.weights, self.course.window)
        longest = max(len(conversations.example(row)) for row in rows)
        return min(self.course.window, -(-longest // 64) * 64)

    def _with(self, adapter: Path | None) -> Specialist:
        """The expert with an adapter, or with its file's."""
        return self.ready if adapter is None else replace(self.ready, adapter=str(adapter))

    def _own(self, adapter: Path | None) -> Adapter | None:
        """An adapter, or the file's."""
        path = adapter or self.ready.adapter
        return read_adapter(path) if path else None


def marks_of(state: Path, expert: str, since: float, until: float) -> Marks:
    """How turns of an expert were marked in some time: of each turn the newest mark counts; a preference says nothing
    of one answer alone."""
    from llmos.kernel.journal import read
    from llmos.kernel.journal.records import Feedback, Spawned

    good = bad = 0
    for folder in journals(state):
        experts, newest = dict[int, str](), dict[tuple[int, int], bool]()
        for record in read(folder, kinds=[Spawned, Feedback]):
            match record.body:
                case Spawned(expert=name):
                    experts[record.pid] = name
                case Feedback(turn=turn, verdict="good" | "bad" | "correct" as verdict):
                    if experts.get(record.pid) == expert and since <= record.time <= until:
                        newest[record.pid, turn] = verdict == "good"
                case _:
                    pass
        good, bad = good + sum(newest.values()), bad + sum(not well for well in newest.values())
    return Marks(good, bad)


def night_of(parts: ExpertNight) -> Night:
    """The nights of an expert, in the machine's state."""
    return Night(folder_of(parts.config.machine.state, parts.expert.name), parts)


def folder_of(state: Path, expert: str) -> Path:
    """Where the nights of an expert are kept."""
    return state / "nights" / expert


def _rows(path: Path) -> list[Row]:
    return read_rows(path) if path.exists() else []
