"""Sites of one page: what a model may write, and how that becomes HTML and a picture of it.

What: a page as a pydantic model, so that the grammar lets nothing else be written; HTML of it; a picture by Chromium.
Invariant: the page is one file that loads nothing, runs no script and sends no form: its policy (CSP) allows its own
    style, by its hash, and nothing else; the model's words are escaped text. The browser that takes the picture is
    confined, and reaches no address at all.
Interface: `Page`; `prompt(description, sketched)`; `html(page)`; `await picture(html)`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from llmos.drivers.web.addresses import Gate
from llmos.drivers.web.chromium import Chromium
from llmos.drivers.web.errors import PageFailed

MAX_BLOCKS = 12
SECONDS = 20.0  # that the browser may take for a page
MAX_HEIGHT = 8000  # pixels of the picture

Line = Annotated[str, Field(min_length=1, max_length=80)]
Prose = Annotated[str, Field(min_length=1, max_length=400)]
Theme = Literal["light", "dark", "blue", "green", "orange", "pink"]
_THEMES: dict[str, tuple[str, str, str]] = {  # ground, words, accent
    "light": ("#ffffff", "#222222", "#2255aa"), "dark": ("#16181d", "#eeeeee", "#7aa2f7"),
    "blue": ("#eaf2ff", "#14213d", "#1d4ed8"), "green": ("#eefaf0", "#14321c", "#15803d"),
    "orange": ("#fff6ea", "#3b2410", "#c2410c"), "pink": ("#fff0f6", "#3d1428", "#be185d"),
}  # fmt: skip


class Heading(BaseModel):
    """A heading inside of the page."""

    block: Literal["heading"]
    text: Line


class Paragraph(BaseModel):
    """A paragraph of plain words."""

    block: Literal["paragraph"]
    text: Prose


class Points(BaseModel):
    """A list."""

    block: Literal["list"]
    items: Annotated[list[Line], Field(min_length=1, max_length=8)]


class Reveal(BaseModel):
    """A button that shows hidden words: a riddle's answer, a joke's punchline."""

    block: Literal["reveal"]
    text: Prose
    button: Annotated[str, Field(min_length=1, max_length=40)]
    hidden: Prose


class Table(BaseModel):
    """A table; its first row is its head."""

    block: Literal["table"]
    rows: Annotated[
        list[Annotated[list[Annotated[str, Field(max_length=60)]], Field(min_length=1, max_length=5)]],
        Field(min_length=1, max_length=8),
    ]


class Page(BaseModel):
    """A page from top to bottom."""

    title: Line
    theme: Theme
    blocks: Annotated[
        list[Heading | Paragraph | Points | Reveal | Table], Field(min_length=1, max_length=MAX_BLOCKS)
    ]
    footer: Annotated[str, Field(max_length=80)]


def prompt(description: str, sketched: Sequence[str]) -> str:
    """What the model is asked; `sketched` are the lines that were read in a sketch, from top to bottom."""
    wish = """A web page is made of blocks: "heading", "paragraph", "list", "table" and "reveal", which is a text with \
a button that shows hidden words. An example, a page with a riddle:
{"title": "Riddles", "theme": "light", "blocks": [{"block": "paragraph", "text": "Can you guess?"}, {"block": \
"reveal", "text": "What has keys but no locks?", "button": "Show", "hidden": "A piano."}], "footer": "Have fun"}

"""
    if sketched:
        wish += "A sketch of the page has these words, from top to bottom:\n" + "\n".join(sketched) + "\n\n"
        wish += "Keep these words. Where one in brackets says what should stand there, write that.\n\n"
    return wish + f"Now write this page: {description.strip() or 'what the sketch shows'}"


def html(page: Page) -> str:
    """The page as one HTML file."""
    ground, words, accent = _THEMES[page.theme]
    style = _STYLE.format(ground=ground, words=words, accent=accent)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    blocks = "\n".join(map(_block, page.blocks))
    footer = f"<footer>{_text(page.footer)}</footer>\n" if page.footer.strip() else ""
    title = _text(page.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>{title}</h1>\n{blocks}\n</main>\n{footer}</body>\n</html>\n"
    )


_STYLE = (
    "body{{margin:0;background:{ground};color:{words};font:18px/1.6 sans-serif}}"
    "main{{max-width:44rem;margin:0 auto;padding:2rem 1rem}}"
    "h1,h2{{color:{accent};line-height:1.2}}"
    "summary{{display:inline-block;list-style:none;cursor:pointer;background:{accent};color:{ground};"
    "padding:.4rem 1rem;border-radius:.5rem}}"
    "table{{border-collapse:collapse}}td,th{{border:1px solid {accent};padding:.3rem .8rem;text-align:left}}"
    "footer{{text-align:center;padding:1rem;opacity:.8}}"
)


def _block(block: Heading | Paragraph | Points | Reveal | Table) -> str:
    match block:
        case Heading(text=text):
            return f"<h2>{_text(text)}</h2>"
        case Paragraph(text=text):
            return f"<p>{_text(text)}</p>"
        case Points(items=items):
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"
        case Reveal(text=text, button=button, hidden=hidden):
            inside = f"<summary>{_text(button)}</summary><p>{_text(hidden)}</p>"
            return f"<section><p>{_text(text)}</p><details>{inside}</details></section>"
        case Table(rows=[head, *rows]):
            top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
            rest = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
            return f"<table><tr>{top}</tr>{rest}</table>"
    return ""


def _text(text: str) -> str:
    """Words as HTML shows them, on one line."""
    return escape(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


async def _nowhere(host: str, port: int) -> Sequence[str]:
    raise OSError("a page of the studio loads nothing")


async def picture(page: str) -> bytes:
    """A PNG of a page of ours as Chromium shows it.

    Raises:
        ChromiumMissing: there is none, or it cannot be confined.
        PageFailed: it did not show the page.
    """
    from playwright.async_api import Error

    chromium = await Chromium.start(Gate(resolve=_nowhere))
    try:
        tab = await chromium.context.new_page()
        await tab.set_content(page, timeout=SECONDS * 1000)
        height = await tab.evaluate("document.documentElement.scrollHeight")
        width = tab.viewport_size["width"] if tab.viewport_size else 1280
        clip = {"x": 0, "y": 0, "width": width, "height": max(min(int(height), MAX_HEIGHT), 1)}
        return await tab.screenshot(full_page=True, clip=clip, timeout=SECONDS * 1000, animations="disabled")  # type: ignore[arg-type]
    except Error as error:
        raise PageFailed("Chromium did not show the page", why=str(error).partition("\n")[0][:200]) from None
    finally:
        await chromium.close()
