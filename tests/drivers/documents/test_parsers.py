"""Every format becomes blocks with their kind, headings and exact place; nothing shown to a reader is lost."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.documents.document import Block, Document, describe, from_json, to_json
from llmos.drivers.documents.markdown import parse_markdown
from llmos.drivers.documents.plain import parse_plain
from llmos.drivers.documents.web import parse_html

PLAIN = """\
The Handbook
************

Welcome to
the handbook.


1. Leave
========

Everybody has 25 days.

* one item

* another

Run this::

   leave --days 25

+-----+-----+
| a   | b   |
+-----+-----+

1.1. Sick leave
---------------

Call before nine.
"""

MARKDOWN = """\
# The Handbook

Welcome to
the handbook.

## Leave

Everybody has **25** days:

- one item
- another

```sh
# not a heading
leave --days 25
```

| kind | days |
|------|------|
| sick | any  |

[link]: https://example.org "kept"

Sick leave
----------

> Call before nine.
"""

HTML = """\
<!DOCTYPE html><html><head><title>The  Handbook</title><style>p{}</style></head>
<body><nav><a href="x">Home</a></nav>
<h1>The <em>Handbook</em><a class="headerlink" href="#x">¶</a></h1>
<p>Welcome to
the hand<b>book</b>.
<h2>Leave</h2>
<p>Everybody has 25&nbsp;days &amp; more.</p>
<ul><li>one item<li><p>another</p></ul>
<pre>
leave  --days 25
  indented
</pre>
<table><tr><th>kind<th>days</tr>
<tr><td>sick</td><td>any</td></tr></table>
<script>var hidden = "<p>never</p>";</script>
<div class="related">previous | next</div>
<p>The end.</p></body></html>
"""


def blocks(document: Document) -> list[tuple[str, str, int, int, tuple[str, ...]]]:
    return [(b.kind, b.text, b.places[0], b.places[-1], b.path) for b in document.blocks]


def test_plain_text_structure() -> None:
    document = parse_plain(PLAIN, "handbook.txt")
    top, leave, sick = "The Handbook", "1. Leave", "1.1. Sick leave"
    assert document.title == top
    assert blocks(document) == [
        ("heading", top, 1, 1, (top,)),
        ("paragraph", "Welcome to\nthe handbook.", 4, 5, (top,)),
        ("heading", leave, 8, 8, (top, leave)),
        ("paragraph", "Everybody has 25 days.", 11, 11, (top, leave)),
        ("list", "* one item", 13, 13, (top, leave)),
        ("list", "* another", 15, 15, (top, leave)),
        ("paragraph", "Run this::", 17, 17, (top, leave)),
        ("code", "   leave --days 25", 19, 19, (top, leave)),
        ("table", "+-----+-----+\n| a   | b   |\n+-----+-----+", 21, 23, (top, leave)),
        ("heading", sick, 25, 25, (top, leave, sick)),
        ("paragraph", "Call before nine.", 28, 28, (top, leave, sick)),
    ]


def test_headings_with_a_line_above_them_too() -> None:
    document = parse_plain("=====\nTitle\n=====\n\nPart\n====\n\ntext\n", "x.rst")
    assert [b.path for b in document.blocks] == [("Title",), ("Title", "Part"), ("Title", "Part")]


def test_a_rule_that_is_too_short_makes_no_heading() -> None:
    document = parse_plain("A long line of prose here\n---\nmore\n", "x.txt")
    assert [b.kind for b in document.blocks] == ["paragraph"]


def test_markdown_structure() -> None:
    document = parse_markdown(MARKDOWN, "handbook.md")
    top, leave, sick = "The Handbook", "Leave", "Sick leave"
    assert document.title == top
    assert blocks(document) == [
        ("heading", top, 1, 1, (top,)),
        ("paragraph", "Welcome to\nthe handbook.", 3, 4, (top,)),
        ("heading", leave, 6, 6, (top, leave)),
        ("paragraph", "Everybody has **25** days:", 8, 8, (top, leave)),
        ("list", "- one item\n- another", 10, 11, (top, leave)),
        ("code", "```sh\n# not a heading\nleave --days 25\n```", 13, 16, (top, leave)),
        ("table", "| kind | days |\n|------|------|\n| sick | any  |", 18, 20, (top, leave)),
        ("paragraph", '[link]: https://example.org "kept"', 22, 22, (top, leave)),
        ("heading", sick, 24, 24, (top, sick)),
        ("paragraph", "> Call before nine.", 27, 27, (top, sick)),
    ]


def test_html_structure() -> None:
    document = parse_html(HTML, "handbook.html")
    top, leave = "The Handbook", "Leave"
    assert document.title == top
    assert blocks(document) == [
        ("heading", top, 3, 3, (top,)),
        ("paragraph", "Welcome to\nthe handbook.", 4, 5, (top,)),
        ("heading", leave, 6, 6, (top, leave)),
        ("paragraph", "Everybody has 25 days & more.", 7, 7, (top, leave)),
        ("list", "- one item", 8, 8, (top, leave)),
        ("list", "- another", 8, 8, (top, leave)),
        ("code", "leave  --days 25\n  indented", 10, 11, (top, leave)),
        ("table", "kind | days\nsick | any", 13, 14, (top, leave)),
        ("paragraph", "The end.", 17, 17, (top, leave)),
    ]


SPHINX = """\
<p>It must not contain links, <a class="footnote-reference brackets" href="#id7" id="id2">2</a>
<a class="footnote-reference brackets" href="#id8">3</a> or devices.</p>
<dl class="footnote brackets">
<dt class="label" id="id7"><span class="brackets"><a class="fn-backref" href="#id2">2</a></span></dt>
<dd><p>Older tools made them.</p></dd>
<dt class="label" id="id8"><span class="brackets">3</span><span class="fn-backref">(<a href="#a">1</a>)</span></dt>
<dd><p>Section 2 says more.</p></dd></dl>
<aside class="footnote brackets" id="id9"><span class="label"><span class="fn-bracket">[</span><a role="doc-backlink"
href="#id2">4</a><span class="fn-bracket">]</span></span><p>Newer ones too.</p></aside>
"""


def test_numbers_of_footnotes_are_not_text() -> None:
    texts = [block.text for block in parse_html(SPHINX, "x.html").blocks]
    assert texts == [
        "It must not contain links,\nor devices.",
        "Older tools made them.",
        "Section 2 says more.",
        "Newer ones too.",
    ]
    for mark in (
        '<sup class="reference"><a href="#n">[1]</a></sup>',
        '<a class="footnote-ref" role="doc-noteref"><sup>1</sup></a>',
        '<sup role="doc-noteref"><a class="footnote">1</a></sup>',
    ):
        assert (
            parse_html(f"<p>A rule{mark} of 10<sup>2</sup>.</p>", "x.html").blocks[0].text == "A rule of 102."
        )
    unclosed = parse_html('<p>One <a class="footnote-reference">1 end.</p><p>Two</p>', "x.html")
    assert [block.text for block in unclosed.blocks] == ["One", "Two"]


def test_html_that_hides_its_end_says_so() -> None:
    document = parse_html("<p>seen</p><nav><p>never closed", "x.html")
    assert [b.text for b in document.blocks] == ["seen"]
    assert document.notes == ("a <nav> that is never closed hides the end",)


def test_deep_nesting_and_entity_bombs_are_only_text() -> None:
    deep = parse_html("<div>" * 20_000 + "bottom" + "</div>" * 20_000, "x.html")
    assert [b.text for b in deep.blocks] == ["bottom"]
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><p>&b;</p>'
    assert "haha" not in " ".join(b.text for b in parse_html(bomb, "x.html").blocks)
    nested = parse_markdown("> " * 2_000 + "deep\n\n" + "[" * 2_000 + "\n\nafter\n", "x.md")
    assert nested.blocks[-1].text == "after"


def test_positions_as_people_write_them() -> None:
    assert describe("line", 10, 24) == "lines 10-24"
    assert describe("page", 3, 3) == "page 3"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


LINES = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=30),
        st.sampled_from(
            ["", "# Head", "Head", "====", "----", "* item", "    code", "```", "| a | b |", "::"]
        ),
    ),
    max_size=30,
)


@given(LINES)
def test_plain_text_loses_no_word_and_knows_each_line(lines: list[str]) -> None:
    document = parse_plain("\n".join(lines), "x.txt")
    assert [w for b in document.blocks for w in _words(b.text)] == [
        w for line in lines for w in _words(line)
    ] or (_ruled(lines))
    for block in document.blocks:
        for place, text in zip(block.places, block.text.split("\n"), strict=True):
            assert text.strip() == lines[place - 1].expandtabs(8).strip()


def _ruled(lines: list[str]) -> bool:
    """Rules of underscores under headings are `words` to a regular expression; they are not text."""
    return any(re.fullmatch(r"(.)\1{2,}", line.strip()) for line in lines)


@given(LINES)
def test_markdown_loses_no_line(lines: list[str]) -> None:
    document = parse_markdown("\n".join(lines), "x.md")
    held = [place for b in document.blocks for place in b.places]
    assert held == sorted(held)
    assert len(set(held)) == len(held)
    for number, line in enumerate(lines, 1):
        if _words(line) and number not in held:
            assert not _words(re.sub(r"[-=#]", "", line)), f"line {number} is lost: {line!r}"


TAGS = """
<p> <li> <td> <table> </table> <pre> </pre> <h2> </h2> <br> <div> </div> <title> </title> <nav> </nav> <!-- <![CDATA[
"""


@given(st.text(max_size=200), st.lists(st.sampled_from(TAGS.split()), max_size=12))
def test_html_never_fails_and_its_places_exist(text: str, tags: list[str]) -> None:
    source = "".join(tag + text[k * 9 : k * 9 + 9] for k, tag in enumerate(tags)) + text
    document = parse_html(source, "x.html")
    last = source.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    assert all(1 <= place <= last for b in document.blocks for place in b.places)
    assert all(b.text.strip() for b in document.blocks)


def test_a_document_crosses_a_process_border_unchanged() -> None:
    document = parse_markdown(MARKDOWN, "handbook.md")
    assert from_json(to_json(document)) == document


def test_a_block_knows_all_its_lines() -> None:
    import pytest

    with pytest.raises(ValueError, match="1 places for 2 lines"):
        Block("paragraph", "two\nlines", (1,))
