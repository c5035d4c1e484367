"""The conversation: five requests to experts and syscalls, each checked against the data before the next one.

What: collects a company's rounds from the web into a table with sources, imputes what it is worth where no page says
    so, plots it, fits a trend, has a picture made.
Invariant: every figure is the model's own reading or its own call; what is asked is put together from the data file's
    column names and from what the model found before. An answer that the data contradict is asked for again, with
    other random bits, `asking.TRIES` times.
Interface: `Session(kernel, shelf, company, seed)`: `run(url) -> Outcome`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from math import isclose
from pathlib import Path
from typing import Literal

from pydantic import create_model

from examples.scale_ai.asking import Asking, with_grants
from examples.scale_ai.checks import no_plot, no_trend, place, spoken, trend_of
from examples.scale_ai.site import Company
from examples.scale_ai.table import MISSING, Table, as_csv, markdown, millions, row_type, shown
from llmos.abi.errors import AnswerCut
from llmos.abi.events import Call, Result
from llmos.abi.machine import Machine
from llmos.apps.experts.shelf import Shelf


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
        self._company, self._work, self._say = company, work, say
        self._today, self._until = today, until
        self.asking = Asking(kernel, shelf, work, seed, say)
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
        self.outcome.again = self.asking.again
        return self.outcome

    # -- the five requests ---------------------------------------------------------------------------------------

    def collect(self, url: str) -> None:
        """A table of the rounds, a page each, with its sources."""
        company, table = self._company, self.outcome.table
        self._say(
            f"> Collect the funding rounds of {company.company} from {url} into a table, with citations."
        )
        for name, address in self._rounds(url):
            page = self.asking.opened(address)
            asked = (
                f"{page}\n\nTake these from the page, in its own words: {', '.join(company.columns)}. "
                f'What the page does not say is "{MISSING}".'
            )
            table.add(name, self.asking.read_twice(asked, row_type(company.columns, page), page), address)
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
        wanted = [f"line of {len(points)} points from {place(*points[0])} to {place(*points[-1])}"]
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
        trend = self.asking.tried(
            lambda seed: trend_of(self.asking.called(with_grants(grants), asked, seed)),
            lambda t: no_trend(points, t, today, until),
        )
        self.outcome.trend = trend
        fitted = [(day, shown(number), shown(trend[day])) for day, number in points]
        lines = sorted([*fitted, *((day, "", shown(trend[day])) for day in {today, until})])
        (self._work / "trend.csv").write_text(as_csv([when, worth, "trend"], lines))
        ends = [place(day, trend[day]) for day, _, _ in (lines[0], lines[-1])]
        wanted = [
            f"line of {len(points)} points from {place(*points[0])} to {place(*points[-1])}",
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
        self.outcome.picture = self.asking.tried(
            lambda seed: self.asking.file(self.asking.called(with_grants(["studio.draw"]), asked, seed)),
            lambda path: "" if path else "there is no picture",
        )
        self._say(f"[{self.outcome.picture}]")

    # -- reading -------------------------------------------------------------------------------------------------

    def _rounds(self, url: str) -> list[tuple[str, str]]:
        """The rounds that the front page links to, each with its page."""
        page = self.asking.opened(url)
        addresses = dict(re.findall(r"^\[(L\d+)\] (\S+)$", page, re.MULTILINE))
        links = {words: addresses[name] for words, name in re.findall(r"(\w[^\[\]\n]*) \[(L\d+)\]", page)}
        form = create_model("Links", **dict.fromkeys(links, (bool, ...)))  # type: ignore[call-overload]
        asked = f"{page}\n\nWhich of these links are about a funding round of {self._company.company}?"
        found = self.asking.tried(
            lambda seed: [name for name, is_round in self.asking.read(asked, form, seed) if is_round],
            lambda rounds: "" if len(rounds) > 1 else "there are no rounds",
        )
        return [(name, links[name]) for name in found]

    # -- calculating ---------------------------------------------------------------------------------------------

    def _calculated(self, asked: str, check: float) -> float:
        """What the calculator says; the model writes the expression. `check` is what the table gives."""
        assistant = self.asking.experts["assistant"]

        def number(seed: int) -> float:
            results = self.asking.called(assistant, asked, seed)
            found = re.match(r"(-?[\d.]+(?:/\d+)?)\b", results[0][1].text)  # 0.1, or 1/7 (about 0.14)
            return float(Fraction(found[1])) if found else float("nan")

        return self.asking.tried(
            number, lambda n: "" if isclose(n, check, rel_tol=1e-4) else "it is not what the table gives"
        )

    def _mean(self, numbers: Sequence[str]) -> float:
        asked = f"Calculate the mean of the numbers {', '.join(numbers)}."

        def mean(seed: int) -> float:
            results = self.asking.called(with_grants(["calculator.statistics"]), asked, seed)
            return float(json.loads(results[0][1].text)["mean"].rpartition("about ")[2].rstrip(")"))

        middle = sum(map(float, numbers)) / len(numbers)
        return self.asking.tried(
            mean, lambda n: "" if isclose(n, middle, rel_tol=1e-6) else "these are other numbers"
        )

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

        said = self.asking.tried(lambda seed: self.asking.read(asked, form, seed).model_dump(), wrong)
        self.outcome.said = {date.fromisoformat(day): millions(number) for day, number in said.items()}
        today, until = (spoken(number) for number in self.outcome.said.values())
        self._say(f"By the trend the {worth} is {today} today and {until} on {self._until}.")

    # -- drawing -------------------------------------------------------------------------------------------------

    def _plotted(self, asked: str, wanted: Sequence[str]) -> Path:
        """A plot, checked by what the interpreter says of it."""
        analyst = self.asking.experts["analyst"]
        results: list[tuple[Call, Result]] = []

        def plotted(seed: int) -> str:
            results[:] = self.asking.called(analyst, asked, seed)
            return "\n".join(result.text for _, result in results)

        self.asking.tried(plotted, lambda text: no_plot(text, wanted))
        path = self.asking.file(results)
        assert path is not None, "the interpreter told of a figure"
        self._say(f"[{path}]")
        return path

    def _points(self) -> list[tuple[date, float]]:
        return self.outcome.table.points(self._company.date, self._company.worth)

    # -- asking --------------------------------------------------------------------------------------------------
