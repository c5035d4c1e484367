"""The conversation: five requests to experts and syscalls, each checked against the data before the next one.

What: collects a company's rounds from the web into a table with sources, imputes what it is worth where no page says
    so, plots it, fits a trend, has a picture made.
Invariant: every figure is the model's own reading or its own call; what is asked is put together from the data file's
    column names and from what the model found before. An answer that the data contradict is asked for again, with
    other random bits, `TRIES` times.
Interface: `Session(kernel, shelf, company, seed)`: `run(url) -> Outcome`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from itertools import count
from math import isclose, log
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, create_model

from examples.scale_ai.site import Company
from examples.scale_ai.table import MISSING, Table, as_csv, markdown, millions, objections, row_type, shown
from llmos.abi.errors import AnswerCut, LLMOSError
from llmos.abi.events import Call, Result
from llmos.abi.labels import UNTRUSTED
from llmos.abi.machine import AnyProcess, Machine
from llmos.abi.specialist import Specialist
from llmos.apps.experts.launch import prepare
from llmos.apps.experts.shelf import Shelf

TRIES = 8
TEMPERATURE = 0.3  # so that another seed may say something else
T = TypeVar("T")


@dataclass(slots=True)
class Outcome:
    """What came of the conversation. Money is in millions; `trend` is by date; files lie in the working folder."""

    table: Table
    imputed: dict[str, float] = field(default_factory=dict)
    trend: dict[date, float] = field(default_factory=dict)
    said: dict[date, float] = field(default_factory=dict)
    plot: Path | None = None
    trend_plot: Path | None = None
    picture: Path | None = None
    again: int = 0  # answers that had to be asked for again


class Session:
    """One conversation about one company."""

    def __init__(
        self,
        kernel: Machine,
        shelf: Shelf,
        company: Company,
        *,
        work: Path,
        seed: int,
        today: date,
        until: date,
        say: Callable[[str], None] = print,
    ) -> None:
        """
        Args:
            work: the folder that all processes of this conversation share.
            today: pinned, so that the same seed says the same.
            until: where the trend is extrapolated to.
        """
        self._kernel, self._company, self._work, self._say = kernel, company, work, say
        self._today, self._until = today, until
        self._seeds: Iterator[int] = count(seed * 1000)
        self._experts = {
            name: prepare(shelf, name, None)[1]
            for name in ("researcher", "librarian", "assistant", "analyst")
        }
        self.outcome = Outcome(Table(company.columns))

    def run(self, url: str) -> Outcome:
        """All of it, from the company's front page on.

        Raises:
            AnswerCut: something did not come out right, however often it was asked.
        """
        self.collect(url)
        self.impute()
        self.plot()
        self.extrapolate()
        self.draw()
        return self.outcome

    # -- the five requests ---------------------------------------------------------------------------------------

    def collect(self, url: str) -> None:
        """A table of the rounds, a page each, with its sources."""
        company, table = self._company, self.outcome.table
        self._say(
            f"> Collect the funding rounds of {company.company} from {url} into a table, with citations."
        )
        for name, address in self._rounds(url):
            page = self._opened(address)
            asked = (
                f"{page}\n\nTake these from the page, in its own words: {', '.join(company.columns)}. "
                f'What the page does not say is "{MISSING}".'
            )
            table.add(name, self._read_twice(asked, row_type(company.columns, page), page), address)
        self._say(table.cited())

    def impute(self) -> None:
        """What it is worth where no page says so, by the ratio in the rounds of which both are known."""
        size, worth, table = self._company.size, self._company.worth, self.outcome.table
        self._say(f"> Impute the missing {worth} by the ratio of {size} to {worth} in the other rounds.")
        known = {n: (table.number(n, size), table.number(n, worth)) for n in table.rows}
        both = {n: (s, w) for n, (s, w) in known.items() if s is not None and w is not None}
        if not both:
            raise AnswerCut(
                f"no page says both {size} and {worth} of a round", do="take a company of which one does"
            )
        ratios = {}
        for name, (raised, valued) in both.items():
            ratios[name] = self._calculated(
                f"{table.plain(name)}\n\nFor {name}, calculate {size} / {worth} with the calculator.",
                raised / valued,
            )
        listed = [shown(ratio) for ratio in ratios.values()]
        mean = self._mean(listed)
        self._say(
            f"{size} / {worth}: "
            + ", ".join(f"{n} {r:.3g}" for n, r in ratios.items())
            + f"; mean {mean:.3g}"
        )
        for name, (raised, valued) in known.items():
            if valued is None and raised is not None:
                asked = f"{table.plain(name)}\n\nCalculate the {worth} of {name}: its {size} divided by {shown(mean)}."
                self.outcome.imputed[name] = self._calculated(asked, raised / float(shown(mean)))
        for name, number in self.outcome.imputed.items():
            table.impute(name, worth, number)
            self._say(f"{worth} of {name}: about {number:.3g} million (imputed)")

    def plot(self) -> None:
        """The worth over time: logarithmic, with a grid."""
        when, worth, points = self._company.date, self._company.worth, self._points()
        self._say(f"> Plot {worth} over {when}, with a logarithmic y axis and a grid.")
        lines = [(day, shown(number)) for day, number in points]
        (self._work / "rounds.csv").write_text(as_csv([when, worth], lines))
        wanted = [f"line of {len(points)} points from {_place(*points[0])} to {_place(*points[-1])}"]
        asked = (
            f"Read rounds.csv with pandas (parse_dates=['{when}']) into df. Plot it with df.plot: x='{when}', "
            f"y='{worth}', marker='o', logy=True, grid=True."
        )
        self.outcome.plot = self._plotted(asked, wanted)

    def extrapolate(self) -> None:
        """A trend that is a straight line on the logarithmic scale, until later; what it says for today and then."""
        when, worth, points = self._company.date, self._company.worth, self._points()
        today, until = self._today, self._until
        self._say(
            f"> Add a linear trend line, extrapolate it until {until}, draw a vertical line at today ({today})."
        )
        days = [day for day, _ in points]
        values = markdown([[when, worth], *([str(day), shown(number)] for day, number in points)])
        asked = (
            f"{values}\n\nFit a trend line on a logarithmic scale through these values at their dates, and extrapolate "
            f"it to {', '.join(map(str, [*days, today]))} and {until}."
        )
        grants = ["calculator.trend"]
        trend = self._tried(
            lambda seed: _trend(self._called(self._plain(grants), asked, seed)),
            lambda t: self._no_trend(points, t),
        )
        self.outcome.trend = trend
        fitted = [(day, shown(number), shown(trend[day])) for day, number in points]
        lines = sorted([*fitted, *((day, "", shown(trend[day])) for day in {today, until})])
        (self._work / "trend.csv").write_text(as_csv([when, worth, "trend"], lines))
        ends = [_place(day, trend[day]) for day, _, _ in (lines[0], lines[-1])]
        wanted = [
            f"line of {len(points)} points from {_place(*points[0])} to {_place(*points[-1])}",
            f"line of {len(lines)} points from {ends[0]} to {ends[1]}",
            f"vertical line at {today}",
        ]
        asked = (
            f"Read trend.csv with pandas (parse_dates=['{when}']) into df. Plot it with df.plot: x='{when}', "
            f"y=['{worth}', 'trend'], logy=True, grid=True. Then add plt.axvline(pd.Timestamp('{today}'))."
        )
        self.outcome.trend_plot = self._plotted(asked, wanted)
        self._tell(worth)

    def draw(self) -> None:
        """A picture for the company."""
        asked = f"Draw a picture that represents the company {self._company.company}."
        self._say(f"> {asked}")
        self.outcome.picture = self._tried(
            lambda seed: self._file(self._called(self._plain(["studio.draw"]), asked, seed)),
            lambda path: "" if path else "there is no picture",
        )
        self._say(f"[{self.outcome.picture}]")

    # -- reading -------------------------------------------------------------------------------------------------

    def _rounds(self, url: str) -> list[tuple[str, str]]:
        """The rounds that the front page links to, each with its page."""
        page = self._opened(url)
        addresses = dict(re.findall(r"^\[(L\d+)\] (\S+)$", page, re.MULTILINE))
        links = {words: addresses[name] for words, name in re.findall(r"(\w[^\[\]\n]*) \[(L\d+)\]", page)}
        form = create_model("Links", **dict.fromkeys(links, (bool, ...)))  # type: ignore[call-overload]
        asked = f"{page}\n\nWhich of these links are about a funding round of {self._company.company}?"
        found = self._tried(
            lambda seed: [name for name, is_round in self._read(asked, form, seed) if is_round],
            lambda rounds: "" if len(rounds) > 1 else "there are no rounds",
        )
        return [(name, links[name]) for name in found]

    def _opened(self, url: str) -> str:
        """A page, opened by the researcher."""
        researcher = self._experts["researcher"]

        def opened(seed: int) -> str:
            results = self._called(researcher, f"Open {url} and read it.", seed)
            return next((r.text for call, r in results if r.ok and call.arguments.get("url") == url), "")

        return self._tried(opened, lambda page: "" if page else f"{url} was not opened")

    def _read_twice(self, asked: str, form: type[BaseModel], page: str) -> Mapping[str, str]:
        """What two readings of a page agree on."""
        seen: list[Mapping[str, str]] = []

        def read(seed: int) -> Mapping[str, str]:
            seen.append(self._read(asked, form, seed).model_dump())
            return seen[-1]

        def wrong(row: Mapping[str, str]) -> str:
            return objections(row, page) or ("" if row in seen[:-1] else "it was read otherwise before")

        read(next(self._seeds))
        return self._tried(read, wrong)

    def _read(self, asked: str, form: Any, seed: int) -> Any:
        """An answer of that type from text that somebody else wrote."""
        librarian = self._experts["librarian"]
        process = librarian.spawn(self._kernel)
        try:
            options = librarian.asked(seed=seed, temperature=TEMPERATURE, max_tokens=400)
            return process.ask(asked, returns=form, label=UNTRUSTED, **options).value
        finally:
            process.close()

    # -- calculating ---------------------------------------------------------------------------------------------

    def _calculated(self, asked: str, check: float) -> float:
        """What the calculator says; the model writes the expression. `check` is what the table gives."""
        assistant = self._experts["assistant"]

        def number(seed: int) -> float:
            results = self._called(assistant, asked, seed)
            found = re.match(r"(-?[\d.]+(?:/\d+)?)\b", results[0][1].text)  # 0.1, or 1/7 (about 0.14)
            return float(Fraction(found[1])) if found else float("nan")

        return self._tried(
            number, lambda n: "" if isclose(n, check, rel_tol=1e-4) else "it is not what the table gives"
        )

    def _mean(self, numbers: Sequence[str]) -> float:
        asked = f"Calculate the mean of the numbers {', '.join(numbers)}."

        def mean(seed: int) -> float:
            results = self._called(self._plain(["calculator.statistics"]), asked, seed)
            return float(json.loads(results[0][1].text)["mean"].rpartition("about ")[2].rstrip(")"))

        middle = sum(map(float, numbers)) / len(numbers)
        return self._tried(
            mean, lambda n: "" if isclose(n, middle, rel_tol=1e-6) else "these are other numbers"
        )

    def _no_trend(self, points: Sequence[tuple[date, float]], trend: Mapping[date, float]) -> str:
        """What is wrong with a trend: it leaves a date out, or is not the line of least squares. The distances of that
        one from the data add up to nothing, also when weighed by the date, and two of its points give the others."""
        if missing := {*(day for day, _ in points), self._today, self._until} - trend.keys():
            return f"{min(missing)} is left out"
        off = [(day.toordinal() - points[0][0].toordinal(), log(y) - log(trend[day])) for day, y in points]
        if abs(sum(d for _, d in off)) > 1e-3 or abs(sum(x * d for x, d in off)) > 1e-3 * max(1, off[-1][0]):
            return "it is not the best line"
        first, last = points[0][0], self._until
        share = (self._today - first).days / (last - first).days
        between = log(trend[first]) + share * log(trend[last] / trend[first])
        return "" if isclose(between, log(trend[self._today]), abs_tol=1e-3) else "it is not a straight line"

    def _tell(self, worth: str) -> None:
        """Say both values, as they stand in the trend."""
        told = {d: f"{shown(self.outcome.trend[d])} million" for d in (self._today, self._until)}
        page = " ".join(f"On {day} the {worth} is {number}." for day, number in told.items())
        wanted = list(map(str, told))
        form = create_model("Said", **dict.fromkeys(wanted, (Literal[tuple(told.values())], ...)))  # type: ignore[call-overload]
        asked = f"{page}\n\nTake the {worth} from the text: on {wanted[0]}, and on {wanted[1]}."

        def wrong(said: Mapping[str, str]) -> str:
            away = [day for day in told if said[str(day)] != told[day]]
            return f"that is not the trend on {away[0]}" if away else ""

        said = self._tried(lambda seed: self._read(asked, form, seed).model_dump(), wrong)
        self.outcome.said = {date.fromisoformat(day): millions(number) for day, number in said.items()}
        today, until = (_spoken(number) for number in self.outcome.said.values())
        self._say(f"By the trend the {worth} is {today} today and {until} on {self._until}.")

    # -- drawing -------------------------------------------------------------------------------------------------

    def _plotted(self, asked: str, wanted: Sequence[str]) -> Path:
        """A plot, checked by what the interpreter says of it."""
        analyst = self._experts["analyst"]
        results: list[tuple[Call, Result]] = []

        def plotted(seed: int) -> str:
            results[:] = self._called(analyst, asked, seed)
            return "\n".join(result.text for _, result in results)

        self._tried(plotted, lambda text: _no_plot(text, wanted))
        path = self._file(results)
        assert path is not None, "the interpreter told of a figure"
        self._say(f"[{path}]")
        return path

    def _points(self) -> list[tuple[date, float]]:
        return self.outcome.table.points(self._company.date, self._company.worth)

    # -- asking --------------------------------------------------------------------------------------------------

    def _plain(self, grants: Sequence[str]) -> Specialist:
        """Nobody in particular, with these grants."""
        return Specialist(grants=tuple(grants), options={"max_tokens": 600, "tool_choice": "required"})

    def _called(self, expert: Specialist, asked: str, seed: int) -> list[tuple[Call, Result]]:
        """What the expert calls for first, with what came of it; nothing more is waited for."""
        options = expert.asked(seed=seed, temperature=TEMPERATURE, tool_choice="required")
        process: AnyProcess = expert.spawn(self._kernel, work=self._work)
        calls: dict[int, Call] = {}
        results: list[tuple[Call, Result]] = []
        try:
            turn = process.ask(asked, **options)
            for event in turn:
                if isinstance(event, Call):
                    calls[event.number] = event
                elif isinstance(event, Result):
                    results.append((calls[event.number], event))
                    if len(results) == len(calls):
                        break
        finally:
            process.close()
        for call, _ in results:
            self._say(f"  {call.syscall} {_brief(call.arguments)}")
        return results

    def _file(self, results: Sequence[tuple[Call, Result]]) -> Path | None:
        """The first picture among results."""
        names = [name for _, result in results for name in result.files if name.endswith(".png")]
        return self._work / names[0] if names else None

    def _tried(self, ask: Callable[[int], T], wrong: Callable[[T], str]) -> T:
        """The first answer that nothing speaks against.

        Raises:
            AnswerCut: there was none.
        """
        problem = ""
        for _ in range(TRIES):
            try:
                answer = ask(next(self._seeds))
                problem = wrong(answer)
                if not problem:
                    return answer
            except (AnswerCut, ValueError, LookupError) as error:
                problem = str(error)
            self.outcome.again += 1
            self._say(f"  (again: {problem})")
        raise AnswerCut(
            f"no answer held against the data in {TRIES} tries",
            why=problem,
            do="try another seed or a larger model",
        )


def _trend(results: Sequence[tuple[Call, Result]]) -> dict[date, float]:
    """What `calculator.trend` said, by date."""
    said = json.loads(results[0][1].text)
    return {date.fromisoformat(day): float(number) for day, number in said.items() if day[:1].isdigit()}


def _no_plot(text: str, wanted: Sequence[str]) -> str:
    """What is wrong with the plot that a result tells of."""
    figures = re.findall(r"^\[figure: (.*)\]$", text, re.MULTILINE)
    if len(figures) != 1:
        return f"there are {len(figures)} figures; {(text.strip() or 'nothing was run').splitlines()[-1]}"
    parts = [re.sub(r"line '[^']*'", "line", part) for part in figures[0].split("; ")]
    axes = {part[0]: part for part in parts if part[:2] in ("x ", "y ")}
    if "dates" not in axes.get("x", "") or "logarithmic" not in axes.get("y", ""):
        return "the axes are not dates and logarithmic"
    if not all("with grid" in axis for axis in axes.values()):
        return "there is no grid"
    return next((f"there is no {part}" for part in wanted if part not in parts), "")


def _place(day: date, number: float) -> str:
    return f"({day}, {float(shown(number)):.6g})"


def _spoken(number: float) -> str:
    """Millions in words."""
    for size, name in ((1e6, "trillion"), (1e3, "billion")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:.3g} million"


def _brief(arguments: Mapping[str, object]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    return text if len(text) < 200 else f"{text[:200]}…"


__all__ = ["LLMOSError", "Outcome", "Session"]
