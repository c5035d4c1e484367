"""The first hour, timed: `python docs/first_hour.py [FOLDER]`.

What: does what docs/first-hour.md says, block after block, in an empty folder, with a clone of this repository and a
    state and cache of its own, and prints the seconds of each part.
Invariant: every command is one of the page; nothing is there that a newcomer would not have (models are fetched; with
    `--cached` those of this machine are taken). A command that fails ends it.
Interface: the blocks of the page: `sh` is run, `python` with a file's name in its first line is written to that file.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
BLOCKS = re.compile(
    r"^## (?P<title>[^\n]+)$|^```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
PAPERS = {
    "lighthouse.pdf": ["The lighthouse of Ostby", "The lighthouse was built in 1887 by Ingrid Ostrom.",
                       "Its lamp is seen from 21 miles, and is tested on the first Monday of each month."],
    "ferry.pdf": ["The ferry to Nordholm", "The last ferry leaves at 21:40. A ticket for a child costs 3.50 euros.",
                  "Dogs travel free of charge if they are kept on a lead."],
    "rules.pdf": ["Rules of the harbour", "Boats may stay for 14 days without a permit.",
                  "Whoever stays longer pays 12 euros a day to the harbour office."],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the first hour.")
    parser.add_argument("folder", nargs="?", help="an empty folder (default: a temporary one)")
    parser.add_argument("--cached", action="store_true", help="models are on this machine already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(arguments.folder or made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "LLMOS_STATE": str(folder / "state")}
        if not arguments.cached:
            environment["LLMOS_CACHE"] = str(folder / "cache")
        walk(folder, environment)
    return 0


def walk(folder: Path, environment: dict[str, str]) -> None:
    """Every block of the page, in order."""
    (folder / "papers").mkdir(exist_ok=True)
    for name, lines in PAPERS.items():
        (folder / "papers" / name).write_bytes(pdf(lines))
    at, title, spent = folder, "", 0.0
    for block in BLOCKS.finditer((DOCS / "first-hour.md").read_text(encoding="utf-8")):
        if block["title"]:
            told(title, spent)
            title, spent = block["title"], 0.0
        elif block["language"] == "python":
            file, _, code = block["code"].partition("\n")
            (at / file.removeprefix("# ")).write_text(code, encoding="utf-8")
        else:
            for line in block["code"].splitlines():
                began = time.monotonic()
                at = step(line, at, folder, environment)
                spent += time.monotonic() - began
    told(title, spent)


def step(line: str, at: Path, folder: Path, environment: dict[str, str]) -> Path:
    """Run one line; the folder that it leaves one in."""
    if line.startswith("git clone"):
        line = f"git clone --quiet {DOCS.parent} llmos && cd llmos"
    line = line.replace("~/papers", str(folder / "papers"))
    sys.stdout.write(f"\n$ {line}\n")
    sys.stdout.flush()
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", f"{line}\npwd > {folder}/.at"], cwd=at, env=environment, check=False)
    sys.stdout.write(f"[{time.monotonic() - began:.1f} s]\n")
    if done.returncode:
        raise SystemExit(f"{line!r} ended with {done.returncode}")
    return Path((folder / ".at").read_text(encoding="utf-8").strip())


def told(title: str, seconds: float) -> None:
    if seconds:
        sys.stdout.write(f"\n=== {title}: {seconds:.0f} s\n")


def pdf(lines: list[str]) -> bytes:
    """A document of one page, as small as they come."""
    text = " ".join(f"({line}) Tj 0 -24 Td" for line in lines)
    stream = f"BT /F1 14 Tf 60 760 Td {text} ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


if __name__ == "__main__":
    raise SystemExit(main())
