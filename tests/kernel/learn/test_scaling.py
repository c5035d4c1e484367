"""A study of scaling, small: planned, stopped, gone on with, refused, drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmos.abi.errors import BadExamples, Cancelled, CheckpointError, LearningError
from llmos.kernel.learn import scaling_plot
from llmos.kernel.learn import stream as streams
from llmos.kernel.learn.scaling import (
    LARGER,
    SIZES,
    Design,
    Done,
    Foretold,
    Plan,
    Run,
    Size,
    Study,
    _runs,
    study,
)
from llmos.kernel.learn.stream import stream
from llmos.kernel.learn.trainer import Point

ROOT = Path(__file__).resolve().parents[3]
DESIGN = Design(
    sizes=(Size(1, 32), Size(1, 64), Size(1, 96)), larger=Size(1, 96), ladder=3, share=0.6, window=32, rows=2,
    vocab=300, checked=32, minutes=60, least=5,
)  # fmt: skip  # with these minutes it is the text that bounds it: the same on every machine


class Watch:
    """Remembers what it is told; asks to stop in the run after so many."""

    def __init__(self, stop_after: int = 1 << 30) -> None:
        self.done: list[Done] = []
        self.began = list[str]()
        self.steps, self.stop_after, self.running = 0, stop_after, 0
        self.plan: Plan | None = None
        self.foretold: Foretold | None = None

    def stop(self) -> bool:
        return len(self.done) >= self.stop_after and self.running >= 3

    def planned(self, plan: Plan) -> None:
        self.plan = plan

    def begins(self, run: Run, number: int, runs: int) -> None:
        self.running = 0
        assert 1 <= number <= runs

    def learnt(self, point: Point, steps: int) -> None:
        self.steps, self.running = self.steps + 1, self.running + 1

    def ended(self, done: Done) -> None:
        self.done.append(done)

    def foretells(self, foretold: Foretold, larger: Run) -> None:
        self.foretold = foretold
        assert [d.run for d in self.done] == list(self.plan.grid if self.plan else ())
        assert larger not in [d.run for d in self.done]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "\n\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))[:40_000]
    path = tmp_path_factory.mktemp("pages") / "pages.jsonl"
    path.write_text("\n".join(json.dumps({"text": part}) for part in text.split("\n\n") if part.strip()))
    return path


@pytest.fixture(scope="module")
def made(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Watch, Watch]:
    """A study that was stopped in its fourth run, and gone on with."""
    out = tmp_path_factory.mktemp("study")
    first, second = Watch(stop_after=3), Watch()
    with pytest.raises(Cancelled):
        study([pages], out, DESIGN, first, first.stop)
    return study([pages], out, DESIGN, second, second.stop), first, second


def test_a_stopped_study_goes_on_where_it_stopped(made: tuple[Study, Watch, Watch]) -> None:
    whole, first, second = made
    assert first.plan == second.plan
    assert second.plan is not None
    steps = [run.windows // DESIGN.rows for run in (*second.plan.grid, second.plan.larger)]
    assert first.steps == sum(steps[:3]) + 3
    assert first.steps + second.steps == sum(steps)
    assert second.done[:3] == first.done
    assert not list((whole.out / "runs").glob("*/"))  # no checkpoints are left


def test_what_is_foretold_is_written_before_it_is_measured(made: tuple[Study, Watch, Watch]) -> None:
    whole, _, second = made
    assert whole.foretold == second.foretold
    kept = json.loads((whole.out / "study.json").read_text())
    assert kept["foretold"] == json.loads((whole.out / "foretold.json").read_text())
    assert kept["error"] == whole.error == pytest.approx(abs(whole.foretold.loss / whole.larger.loss - 1))
    for size in DESIGN.sizes:  # more text is better, or it was not learnt from
        losses = [d.loss for d in sorted(whole.grid, key=lambda d: d.run.tokens) if d.run.size == size]
        assert len(losses) >= 2
        assert losses == sorted(losses, reverse=True)
    assert whole.larger.loss < min(d.loss for d in whole.grid)


def test_other_text_or_dials_are_refused(
    made: tuple[Study, Watch, Watch], pages: Path, tmp_path: Path
) -> None:
    whole, _, _ = made
    with pytest.raises(CheckpointError, match="other text or other dials"):
        study([pages], whole.out, replace(DESIGN, seed=1))
    other = tmp_path / "other.jsonl"
    other.write_text(pages.read_text() + "\n" + json.dumps({"text": "One document more. " * 40}))
    with pytest.raises(CheckpointError, match="other text or other dials"):
        study([other], whole.out, DESIGN)


def test_too_little_text_or_time_is_said_before_anything_is_trained(pages: Path, tmp_path: Path) -> None:
    with pytest.raises(BadExamples, match="too few"):
        study([pages], tmp_path / "a", replace(DESIGN, least=5_000))
    with pytest.raises(LearningError, match="minutes are too short"):
        study([pages], tmp_path / "b", replace(DESIGN, minutes=0.1))
    assert not (tmp_path / "b" / "runs").exists()


def test_the_picture_is_a_function_of_the_study(made: tuple[Study, Watch, Watch], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = [scaling_plot.draw(made[0], folder) for folder in (made[0].out, made[0].out)]
    svg, png = (path.read_bytes() for path in drawn[0])
    assert b"<svg" in svg[:1000]
    assert png.startswith(b"\x89PNG")
    assert (svg, png) == tuple(path.read_bytes() for path in drawn[1])


def test_the_shipped_grid_is_wide_and_its_larger_run_far_away() -> None:
    grid, larger = _runs(Design(), 400)
    sizes, tokens = {r.size.parameters for r in grid}, {r.tokens for r in grid}
    assert len(grid) >= 12
    assert max(sizes) >= 30 * min(sizes)
    assert max(tokens) >= 30 * min(tokens)
    assert larger.compute >= LARGER * max(r.compute for r in grid)
    assert sizes == {s.parameters for s in SIZES}


def test_documents_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.jsonl"
    page.write_text("\n".join(json.dumps({"text": f"This is page {n} of many."}) for n in range(200)))
    first = stream([page], tmp_path, 300, 32, 0)
    with monkeypatch.context() as patch:
        patch.setattr(streams, "texts", None)  # nobody reads
        again = stream([page], tmp_path, 300, 32, 0)
        assert again.digest == first.digest and (again.order == first.order).all()
        assert (again.vocab, again.bytes_a_token) == (first.vocab, first.bytes_a_token)
        assert (stream([page], tmp_path, 300, 32, 1).order != first.order).any()
    kept = tmp_path / streams.KEPT
    kept.write_bytes(kept.read_bytes()[:-100])
    assert stream([page], tmp_path, 300, 32, 0).digest == first.digest
    page.write_text(json.dumps({"text": "One page alone."}))
    with pytest.raises(BadExamples, match="too few"):
        stream([page], tmp_path, 300, 32, 0)
