"""`python -m examples.scale_ai [--seed N] [--company NAME]`: a company's funding rounds, from pages to a trend.

The pages are served by this program, on this machine; everything else is done by the model and its syscalls.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path

import llmos
from examples.scale_ai.session import Outcome, Session
from examples.scale_ai.site import DATA, Company, pages, read, served
from llmos.abi.config import AppConfig, Config
from llmos.abi.machine import Machine
from llmos.apps.experts.shelf import Shelf
from llmos.connect import load_config

TODAY, UNTIL = date(2023, 11, 22), date(2025, 12, 31)


def reachable(config: Config, url: str) -> Config:
    """The machine's configuration, with the example's own pages within the browser's reach."""
    place = url.split("/")[2]
    known = config.apps.get("browser", AppConfig())
    browser = AppConfig.model_validate(
        {**known.model_dump(), "allow": [*known.settings.get("allow", ()), place]}
    )
    return config.model_copy(update={"apps": {**config.apps, "browser": browser}})


def converse(kernel: Machine, company: Company, url: str, work: Path, seed: int) -> Outcome:
    """The whole conversation over the pages at `url`; what it makes lies in `work`."""
    session = Session(kernel, Shelf(kernel.config), company, work=work, seed=seed, today=TODAY, until=UNTIL)
    return session.run(url)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.scale_ai", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the model's random bits")
    parser.add_argument("--company", default="scale-ai", metavar="NAME", help="an entry of the data file")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FILE", help="another data file")
    parser.add_argument("--model", help="in place of the configured one")
    parser.add_argument("--work", type=Path, help="the folder for tables and pictures; otherwise a new one")
    given = parser.parse_args()
    company = read(given.company, given.data)
    work = given.work or Path(tempfile.mkdtemp(prefix="llmos-"))
    work.mkdir(parents=True, exist_ok=True)
    with served(pages(company)) as url:
        config = reachable(load_config(model=given.model), url)
        with llmos.connect(config, attach=False) as kernel:
            outcome = converse(kernel, company, url, work, given.seed)
    print(f"All files are in {work}; {outcome.again} answers were asked for again.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except llmos.LLMOSError as error:
        print(f"scale_ai: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(llmos.Cancelled.exit_code)
