"""The example's own web: pages about a company's funding rounds, made from `companies.yaml` and served on this machine.

What: a front page that links to a page for each round; what a round's entry leaves out stands on no page.
Invariant: served to this machine alone, from memory, and gone with the block.
Interface: `read(name)`, `Company`; `pages(company)`; `served(pages)`, a context manager that gives the address.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmos.abi.errors import ConfigError

DATA = Path(__file__).with_name("companies.yaml")
Kind = Literal["date", "money", "text"]
SAYS: Mapping[Kind, str] = {
    "date": "It was {column} {value}.",
    "money": "The {column} of this round: {value}.",
    "text": "The {column} was {value}.",
}  # where there is no story


class Company(BaseModel):
    """An entry of the data file: `columns` in their order with their kinds, `rounds` by column and `round`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    company: str
    columns: dict[str, Kind]
    size: str
    worth: str
    rounds: list[dict[str, Any]] = Field(min_length=2)

    @model_validator(mode="after")
    def _whole(self) -> Company:
        if list(self.columns.values()).count("date") != 1:
            raise ValueError("expected one column of kind date")
        for column in (self.size, self.worth):
            if self.columns.get(column) != "money":
                raise ValueError(f"{column!r} is no column of kind money")
        known = {"round", "story", *self.columns}
        for entry in self.rounds:
            if "round" not in entry or set(entry) - known:
                raise ValueError(f"a round has a `round` and what is in {sorted(known)}; this is {entry}")
        return self

    @property
    def date(self) -> str:
        """The column that says when."""
        return next(name for name, kind in self.columns.items() if kind == "date")


def read(name: str, path: Path = DATA) -> Company:
    """The company of that name.

    Raises:
        ConfigError: it is not there, or its entry is wrong.
    """
    try:
        entries = yaml.safe_load(path.read_text())
        return Company.model_validate(entries[name])
    except KeyError:
        raise ConfigError(
            f"there is no company {name!r}", do=f"take one of {', '.join(entries)}, or add it", file=str(path)
        ) from None
    except (OSError, yaml.YAMLError, ValidationError, TypeError) as error:
        raise ConfigError(f"{name!r} cannot be read", why=str(error), file=str(path)) from None


def written(value: Any) -> str:
    """A value as pages write it."""
    return f"{value:%B} {value.day}, {value.year}" if isinstance(value, datetime.date) else str(value)


def pages(company: Company) -> dict[str, str]:
    """Path to HTML; the front page is `/`."""
    made, links = {}, []
    for number, entry in enumerate(company.rounds, start=1):
        values = {key: written(value) for key, value in entry.items() if key != "story"}
        story = entry.get("story") or _told(company, entry)
        for key, value in {"company": company.company, **values}.items():
            story = story.replace(f"{{{key}}}", value)
        title = f"{company.company}: {values['round']}"
        made[f"/{number}.html"] = _page(title, f"<p>{escape(story)}</p>")
        links.append(f'<li><a href="/{number}.html">{escape(values["round"])}</a></li>')
    made["/"] = _page(f"{company.company}: funding rounds", f"<ul>{''.join(links)}</ul>")
    return made


def _told(company: Company, entry: Mapping[str, Any]) -> str:
    """A round's page in plain sentences."""
    says = [
        SAYS[kind].format(column=column, value=f"{{{column}}}")
        for column, kind in company.columns.items()
        if column in entry
    ]
    return " ".join(["{company} has completed its round {round}.", *says])


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )


@contextmanager
def served(made: Mapping[str, str]) -> Iterator[str]:
    """Serve these pages; the address of the front page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.get(self.path)
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((found or "not found").encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
