"""`python -m examples.demo [--seed N]`: two questions to Debian's policy manual, answered with citations."""

from __future__ import annotations

import argparse
import sys

import llmos
from examples.demo.corpus import policy_manual
from examples.demo.questions import draw
from llmos.apps.shell.transcript import stream
from llmos.connect import load_config
from llmos.drivers.terminal import Bar


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which two of the 20 questions")
    seed = parser.parse_args().seed
    config = load_config()
    folder = policy_manual(config.machine.cache)
    bar = Bar(sys.stderr)
    print(f"documents: Debian's policy manual, {folder}", flush=True)
    with llmos.connect(config, progress=bar) as kernel:
        process = kernel.spawn(mounts=[folder], progress=bar)
        print(f"model: {config.kernel.model}", flush=True)
        for question in draw(seed):
            process.forget()
            print(f"\n> {question.text}", flush=True)
            stream(process.ask(question.text), sys.stdout, sys.stdout)
    print(f"\nAsk on in the shell: .venv/bin/llmos shell, then type  /mount {folder}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except llmos.LLMOSError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(llmos.Cancelled.exit_code)
