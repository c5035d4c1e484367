"""`python -m benchmarks NAME [--quick] [--json] [--out FOLDER]`: run one benchmark.

What: finds the benchmark, runs it, prints a table for people or one JSON object. With `--out` that object is also
    written to FOLDER/NAME.json, and what can be drawn of it is drawn beside it.
Invariant: stdout has the result only; progress goes to stderr. Every module beside this one that has
    `run(quick, progress)` is a benchmark.
Interface: NAME, `all`, or `--list`.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
import time
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.machine import describe


def benchmarks() -> dict[str, str]:
    """Name -> first line of the docstring, without importing any."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        tree = ast.parse(file.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            found[file.stem.replace("_", "-")] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def measure(name: str, quick: bool, machine: dict[str, object], out: Path | None = None) -> dict[str, object]:
    """Run one benchmark; its result as the JSON object, which is also left in the folder `out`."""
    start_s = time.perf_counter()

    def progress(text: str) -> None:
        print(f"[{time.perf_counter() - start_s:6.1f} s] {name}: {text}", file=sys.stderr, flush=True)

    figures: Figures = importlib.import_module(f"benchmarks.{name.replace('-', '_')}").run(quick, progress)
    command = f"python -m benchmarks {name}{' --quick' * quick}{f' --out {out}' if out else ''}"
    result = described(name, figures, machine, command, time.perf_counter() - start_s)
    if out is not None:
        for path in write(result, figures, out):
            progress(f"written: {path}")
    return result


def described(
    name: str, figures: Figures, machine: dict[str, object], command: str, seconds: float
) -> dict[str, object]:
    """A result as the JSON object."""
    return {
        "name": name,
        "figures": {key: _rounded(value) for key, value in figures.values.items()},
        "machine": machine,
        "models": list(figures.models),
        "notes": list(figures.notes),
        "command": command,
        "seconds": round(seconds, 1),
    }


def write(result: dict[str, object], figures: Figures, out: Path) -> list[Path]:
    """Leave a result in a folder, drawn where it can be."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{result['name']}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    return [file, *(figures.draw(out) if figures.draw else ())]


def _rounded(value: float) -> float:
    """Five significant digits: more is noise."""
    return value if isinstance(value, int) else float(f"{value:.5g}")


def table(result: dict[str, object]) -> str:
    """A result for people."""
    figures, machine, notes = result["figures"], result["machine"], result["notes"]
    assert isinstance(figures, dict) and isinstance(machine, dict) and isinstance(notes, list)
    width = max((len(key) for key in figures), default=0)
    lines = [
        f"{result['name']}   ({machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]})",
        *(f"  {key:{width}}  {value:>12,.6g}" for key, value in figures.items()),
        *(f"  - {note}" for note in notes),
        f"  {result['command']}: {result['seconds']} s",
    ]
    return "\n".join(lines)


def main() -> int:
    known = benchmarks()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure llmos on this machine.",
        epilog="benchmarks:\n" + "\n".join(f"  {name:12} {what}" for name, what in known.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "name", metavar="NAME", nargs="?", choices=[*known, "all"], help="which one, or `all`"
    )
    parser.add_argument("--quick", action="store_true", help="small models, few repeats: within a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="also write the object to FOLDER/NAME.json, and draw it"
    )
    parser.add_argument("--list", action="store_true", help="print the names and what they measure")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:12} {what}" for name, what in known.items()))
        return 0
    if arguments.name is None:
        parser.print_usage(sys.stderr)
        return 2
    machine = describe()
    for name in known if arguments.name == "all" else [arguments.name]:
        result = measure(name, arguments.quick, machine, arguments.out)
        print(json.dumps(result) if arguments.json else table(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
