"""Pages as text by the light reader: structure, links, tables, what is hidden, and what is hostile."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.browser_set import PLAIN, plain
from llmos.drivers.web.characters import reveal
from llmos.drivers.web.errors import PageTooLarge
from llmos.drivers.web.parts import parts
from llmos.drivers.web.reader import Reading, parse_page, read_html, style_sheets
from llmos.drivers.web.sheets import media_applies


def read(html: str, base: str = "http://a.example/dir/page.html") -> Reading:
    tree = parse_page(html)
    return read_html(tree, base, [css for url, css in style_sheets(tree, base) if not url])


def text(html: str) -> str:
    return "\n\n".join(read(html).written.blocks)


def test_headings_lists_tables_and_code() -> None:
    page = text(
        "<title>T</title><h1>Head</h1><p>One<br>two</p><ul><li>a<ul><li>b</ul><li>c</ul><ol start=3><li>x</ol>"
        "<table><tr><th>Year<th>Sum<tr><td rowspan=2>2020<td>1<tr><td>2|3</table><pre>a\n  b</pre>"
    )
    assert page == (
        "# Head\n\nOne\ntwo\n\n- a\n  - b\n- c\n3. x\n\n"
        "| Year | Sum |\n|---|---|\n| 2020 | 1 |\n| 2020 | 2\\|3 |\n\n```\na\n  b\n```"
    )


def test_links_are_numbered_once_and_absolute() -> None:
    written = read(
        "<base href=/b/><a href=x>one</a> <a href='//c.example/y'>two</a> <a href=x>again</a> <a href='#top'>top</a>"
        "<a href='javascript:x()'>script</a> <a href=' http://d.example/a b'>bad</a>"
    ).written
    assert written.blocks == ("one [L1] two [L2] again [L1] topscript bad",)
    assert [link.url for link in written.links] == ["http://a.example/b/x", "http://c.example/y"]


def test_fields_and_buttons_say_what_they_are() -> None:
    written = read(
        "<label for=n>Your name</label><input id=n value=Ada><input type=hidden name=h value=secret>"
        "<select name=s><option>red<option selected>green</select><input type=checkbox name=c checked>"
        "<input type=password name=p value=secret><button>Send <b>now</b></button>"
    ).written
    assert "[F1 text: Your name = Ada]" in written.blocks[0]
    assert "[F2 select: s = green of: red / green]" in written.blocks[0]
    assert "[F3 checkbox: c = yes]" in written.blocks[0]
    assert "[B1 button: Send now]" in written.blocks[0]
    assert "secret" not in written.blocks[0]


def test_what_surrounds_the_page_comes_after_it() -> None:
    page = text("<nav><a href=/>Home</a></nav><main><p>News</p></main><footer>End</footer>")
    assert page.index("News") < page.index("around the page") < page.index("Home") < page.index("End")


def test_nested_tables_are_layout() -> None:
    page = text("<table><tr><td>menu<td><table><tr><td>1<td>2</table><p>words</p></table>")
    assert "| 1 | 2 |" in page and "menu" in page and "words" in page


def test_a_page_cannot_write_marks_or_attributes_of_ours() -> None:
    page = text("<p>⟦hidden (x): y⟧</p><img alt=z ' hidden'='no'><input ' node'=7 name=q>")
    assert "⟦" not in page
    assert read("<input ' node'=7 name=q>").written.controls[0].node == -1


def test_comments_and_templates_are_counted() -> None:
    assert read("<p>x</p><!-- secret --><template>t</template>").left_out == (
        "1 comments (6 characters)",
        "1 templates",
    )


def test_text_that_scripts_make_is_missed_and_said() -> None:
    assert read("<div id=root></div><script src=app.js></script>").empty
    assert not read("<p>short</p>").empty


@pytest.mark.parametrize(
    "css",
    [
        "p:unknown(x){display:none}",
        "@container (width>1px){p{color:white}}",
        "p{color:var(--none)}",
    ],
)
def test_styles_that_are_not_understood_are_doubts(css: str) -> None:
    assert read(f"<style>{css}</style><p class=a>x</p>").doubts


@pytest.mark.parametrize(
    ("query", "applies"),
    [
        ("screen", True), ("print", False), ("not print", True), ("(min-width: 40em) and (max-width: 2000px)", True),
        ("print, screen", True), ("(max-width:500px)", False), ("(width > 3px)", None), ("(unknown: 1)", None),
    ],
)  # fmt: skip
def test_media_queries(query: str, applies: bool | None) -> None:
    assert media_applies(query) is applies


@pytest.mark.parametrize("name", PLAIN)
def test_on_plain_pages_nothing_is_marked(name: str) -> None:
    assert "⟦" not in text(plain(name))


@pytest.mark.parametrize(
    "hostile",
    [
        "<div>" * 7_000,
        "<table><tr><td>" * 5_000,
        "<ul><li>" * 5_000,
        "<a href=x>" * 20_000,
        "<b><i>" * 20_000 + "x",
        "<p style='" + "color:red;" * 20_000 + "'>x",
        "<style>" + "a{" * 20_000 + "</style>x",
        "<style>p{color:" + "(" * 5_000 + "}</style><p>x",
        "<select>" + "<option>o" * 7_000,
        "<td colspan=999999 rowspan=999999>x" * 500,
        "<!--" * 50_000,
        "<svg><title>" * 10_000,
        "&" * 200_000,
        "\0" * 1000 + "<p>x",
    ],
    ids=lambda html: html[:12],
)
def test_hostile_markup_ends(hostile: str) -> None:
    began = time.process_time()
    with contextlib.suppress(PageTooLarge):
        read(hostile)
    assert time.process_time() - began < 20  # seconds of processor time; most take a fraction of one


@settings(max_examples=80)
@given(st.lists(st.sampled_from(
    ["<p>", "</p>", "<table>", "<tr>", "<td>", "</table>", "<li>", "<ul>", "</ul>", "<a href=/x>", "</a>", "<button>",
     "</button>", "<h1>", "</h1>", "word ", "<span style='display:none'>", "</span>", "<details>", "<nav>", "</nav>",
     "<pre>", "\n", "<select><option>", "<br>", "<title>", "</title>", "<svg>", "<iframe src=/f>", "<label>", "\u200b"]
), max_size=40))  # fmt: skip
def test_every_word_is_there_in_any_tag_soup(pieces: list[str]) -> None:
    tree = parse_page("<body>" + "".join(pieces))
    body = tree.body
    assert body is not None
    for node in tree.css("title, iframe"):
        node.decompose()
    wanted = (body.text(deep=True)).split()
    written = read_html(tree, "http://a.example/").written
    shown = " ".join(written.blocks)
    assert shown.count("word") >= len([w for w in wanted if "word" in w])


@pytest.mark.parametrize("piece", [
    "<div>", "<div title='</div>'>", "<b><!--</b>-->", "<div></b>", "<div><object></div></object>", "<dd><li>",
])  # fmt: skip
def test_what_is_nested_for_ever_is_refused(piece: str) -> None:
    with pytest.raises(PageTooLarge, match="nested"):
        parse_page(piece * 60_000)


def test_many_elements_side_by_side_are_not_nested() -> None:
    unclosed = (
        "<section><h2>a</h2><ul><li>b<li><span>c</ul><dl><dt>d<dd>e<dt>f</dl><b>g</section><svg><path/></svg>"
    )
    assert parse_page(unclosed * 5_000).body is not None


def test_what_a_page_writes_by_itself_is_not_taken_for_ours() -> None:
    page = text(
        "<table><tr><td>a\1b</td><td>&lt;/td&gt;&lt;td&gt;</td></tr></table>"
        "<p ~h='' ' node'=1 <x=2 y\"=3>one<x<y>two</x<y>"
        "<input alt='\"><b>' title='</p>' ~n=7><!-- <p>no</p> --><?no <b>?><xmp></b>three</xmp>"
    )
    assert page == "| a\ufffdb | </td><td> |\n\nonetwo [F1 text: text] ?>\n\n</b>three"


@pytest.mark.parametrize("between", ["", "\n  "])
def test_cells_told_together_are_those_told_one_by_one(between: str) -> None:
    def table(extra: str) -> str:  # an attribute that means nothing keeps a cell from being told with others
        rows = [["1", "a | b", ""], [" x  y ", "⟦z⟧", "<a href=/q>ü</a>"], ["<b>p</b>", "q\u200br", "<br>"]]
        cells = [between.join(f"<td{extra}>{cell}</td>" for cell in row) for row in rows]
        return f"<table>{between.join(f'<tr{extra}>{row}</tr>' for row in cells)}</table>"

    hiding = "<style>td{color:#fff}</style>"
    assert text(table("")) == text(table(" title=t"))
    assert text(hiding + table("")) == text(hiding + table(" title=t")) != text(table(""))


@pytest.mark.parametrize("tag", ["frame", "input", "link", "xmp", "plaintext", "iframe"])
def test_what_is_no_page_within_a_drawing_is_left_to_chromium(tag: str) -> None:
    assert read(f"<p>x</p><svg><{tag} style='color:#fff'>hidden</{tag}></svg>").doubts


# --- characters and parts ---


def test_invisible_characters_are_shown_or_what_scripts_need() -> None:
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "obey")
    assert reveal(f"hi{hidden}!") == [("hi", ""), ("obey", "tag characters"), ("!", "")]
    assert reveal("ig\u200bnore")[1][1].startswith("zero-width")
    assert reveal("x" + "\u200b\u200c" * 8 + "y")[1] == ("16 of them", "zero-width characters")
    assert reveal("ab\u202edc")[1][1] == "direction override"
    for plain_text in (
        "می\u200cخواهم",
        "👨\u200d👩\u200d👧",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
        "葛\U000e0100",
        "❤\ufe0f",
    ):
        assert reveal(plain_text) == [(plain_text, "")]
    assert reveal("foo.\u200bbar") == [("foo.bar", "")]


@given(st.lists(st.text(alphabet="ab .\n|", min_size=1, max_size=120), max_size=12), st.integers(10, 80))
def test_parts_hold_everything(blocks: list[str], size: int) -> None:
    made = parts(blocks, size)
    assert "".join("".join(made).split()) == "".join("".join(blocks).split())
    assert all(len(part) <= size for part in made)


def test_a_mark_that_is_split_stands_around_both_pieces() -> None:
    made = parts(["⟦hidden (invisible): " + "obey me " * 40 + "⟧"], 120)
    assert len(made) > 2
    assert all(part.startswith("⟦hidden (invisible): ") and part.endswith("⟧") for part in made)
