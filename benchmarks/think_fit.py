"""Fits how sure a turn may be that has thought: `python -m benchmarks.think_fit FOLDER...`.

What: reads the rows that `python -m benchmarks.think --out FOLDER` wrote, fits the points of
    `kernel/think/confidence.json` on the problems whose name has an even hash, and judges them on the others.
Invariant: what a point is fitted on it is not judged on.
Interface: `main`; prints the file's new contents, and the mean distance between confidence and truth on the half that
    was not used, before and after.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from benchmarks.think import Row, _read, calibration_error
from llmos.kernel.think.confidence import fit, interpolated

LEAST = 12  # rows of a basis that points are worth fitting to


def fitted(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Points of each basis with enough rows."""
    found = {}
    for basis in sorted({row.basis for row in rows}):
        some = [row for row in rows if row.basis == basis]
        if len(some) >= LEAST:
            found[basis] = fit([row.evidence for row in some], [row.right for row in some])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.think_fit", description=__doc__.partition("\n")[0]
    )  # type: ignore[union-attr]
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", required=True, help="identity of the weights, as `llmos doctor` has it")
    given = parser.parse_args()
    rows = [
        row
        for folder in given.folders
        for row in _read(folder / "rows.jsonl")
        if row.basis and row.way != "majority"
    ]
    here = [row for row in rows if sha256(row.name.encode()).digest()[0] % 2 == 0]
    there = [row for row in rows if row not in here]
    points = fitted(here)
    after = [
        replace(
            row,
            confidence=interpolated(points[row.basis], row.evidence) if row.basis in points else row.evidence,
        )
        for row in there
    ]
    raw = [replace(row, confidence=row.evidence) for row in there]
    print(json.dumps({given.weights: points}, indent=1))
    print(
        f"fitted on {len(here)} rows; on the {len(there)} others the error is {calibration_error(after):.3f}, "
        f"{calibration_error(raw):.3f} without", file=sys.stderr,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
