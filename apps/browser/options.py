"""What the machine's owner can say to the browser, under `apps: browser:` in `llmos.yaml`.

What: a frozen model with defaults; a browser without a line of configuration searches by DuckDuckGo and goes to the
    public web only.
Invariant: what is here has been checked: addresses parse, an engine has what it needs.
Interface: `Settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from llmos.drivers.web.addresses import Allowed, parse
from llmos.drivers.web.errors import WebError


class Settings(BaseModel):
    """The browser's configuration.

    Attributes:
        allow: what may be reached although it is not public or not on a port of the web: `127.0.0.1:8000`,
            `10.0.0.0/8`, `intranet.example`.
        search: the engine: DuckDuckGo, a SearXNG server at `searxng`, or an index of the folder `index`, whose
            documents are served at `base`.
        chromium: the program, where it is not the installed one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[str, ...] = ()
    search: Literal["duckduckgo", "searxng", "index"] = "duckduckgo"
    searxng: str = ""
    index: Path | None = None
    base: str = ""
    chromium: str = ""

    @field_validator("allow")
    @classmethod
    def _allowed(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            Allowed.read(entry)
        return entries

    @field_validator("searxng", "base")
    @classmethod
    def _address(cls, url: str) -> str:
        try:
            return parse(url).url if url else url
        except WebError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if self.search == "searxng" and not self.searxng:
            raise ValueError("search: searxng needs `searxng:`, the address of the server")
        if self.search == "index" and not (self.index and self.base):
            raise ValueError(
                "search: index needs `index:`, a folder, and `base:`, the address where it is served"
            )
        return self
