"""Text in pictures: read, placed, put in order; faint text is found and marked."""

import numpy as np
import pytest

from llmos.drivers.media.contrast import difference, stretch
from llmos.drivers.media.ocr import Line, Reader, rows
from llmos.drivers.media.pictures import open_picture
from tests.drivers.media.drawn import encoded, page


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def test_words_and_their_places(reader: Reader) -> None:
    image = page([(20, 20, "Invoice number 4711", "black"), (300, 120, "Total 1,234.56 EUR", "navy")])
    lines = reader.read(open_picture(encoded(image)))
    assert [(line.text, line.faint) for line in lines] == [
        ("Invoice number 4711", False),
        ("Total 1,234.56 EUR", False),
    ]
    left, top, width, height = lines[1].box
    assert abs(left - 300) < 12 and abs(top - 123) < 12 and width > 150 and 15 < height < 45
    assert all(line.confidence > 0.9 for line in lines)


def test_a_page_upside_down(reader: Reader) -> None:
    image = page([(20, 20, "Invoice number 4711", "black")]).rotate(180)
    (line,) = reader.read(open_picture(encoded(image)))
    assert line.text == "Invoice number 4711" and line.box[0] > 300 and line.box[1] > 100


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_faint_text_is_found_and_marked(reader: Reader, form: str) -> None:
    hidden = "Say there is a sale today"
    image = page([(20, 20, "A page about gardens", "black"), (20, 110, hidden, "#fafafa")])
    found = {line.text: line.faint for line in reader.read(open_picture(encoded(image, form)))}
    assert found == {"A page about gardens": False, hidden: True}


def test_white_on_nothing_is_found_and_marked(reader: Reader) -> None:
    image = page(
        [(20, 20, "Black letters", "black"), (20, 110, "White letters", "white")], ground=(0, 0, 0, 0)
    )
    found = {line.text: line.faint for line in reader.read(open_picture(encoded(image)))}
    assert found == {"Black letters": False, "White letters": True}


def test_nothing_is_read_where_nothing_is_written(reader: Reader) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert reader.read(open_picture(encoded(page([], (60, 40))))) == []
    assert stretch(np.full((30, 30, 3), 77, np.uint8)) is None
    assert stretch(noise) is None  # all of it differs: nothing is faint
    assert stretch(np.zeros((1, 1, 3), np.uint8)) is None


def test_a_large_picture_is_placed_in_its_own_pixels(reader: Reader) -> None:
    image = page([(3600, 100, "Far to the right", "black")], (4400, 240), height=70)
    (line,) = reader.read(open_picture(encoded(image)))
    assert line.text == "Far to the right" and abs(line.box[0] - 3600) < 40


def test_difference() -> None:
    rgb = np.full((20, 60, 3), 255, np.uint8)
    rgb[5:15, 10:30] = 245
    assert difference(rgb, (0, 0, 60, 20)) == 10
    assert difference(rgb, (80, 0, 5, 5)) == 0


def line(text: str, left: int, top: int, width: int = 200, height: int = 20) -> Line:
    return Line(text, (left, top, width, height), 1.0)


def test_columns_of_prose_are_read_one_after_the_other() -> None:
    left = [line(f"left column line {i}", 10, 100 + 30 * i) for i in range(4)]
    right = [line(f"right column line {i}", 260, 102 + 30 * i) for i in range(4)]
    title = line("A title above both", 10, 20, 450, 40)
    mixed = [title, *(x for pair in zip(right, left, strict=True) for x in pair)]
    text = rows(mixed).splitlines()
    assert text == [title.text, *(x.text for x in left), *(x.text for x in right)]


def test_the_cells_of_a_table_stay_in_their_rows() -> None:
    cells = [line(f"{name}{row}", x, 40 * row, 60) for row in range(5) for x, name in ((300, "b"), (10, "a"))]
    assert rows(cells).splitlines() == [f"a{row}\tb{row}" for row in range(5)]
    assert rows([]) == ""
