"""A shell on a scripted machine, driven as a program: `python -m tests.apps.shell.machine STATE [options]`.

What: what `llmos shell` and `llmos run` do, with a kernel whose model says what `script` says. `--up` and `--down`
    start and stop one in the background, as `llmos up` does; a shell on the same state attaches to it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from llmos.abi.config import Config
from llmos.abi.progress import Progress
from llmos.apps.shell.operator import ensure
from llmos.apps.shell.shell import Start
from llmos.apps.shell.start import Options
from llmos.apps.shell.start import script as run_script
from llmos.apps.shell.start import shell as run_shell
from llmos.attach import attach, daemon
from llmos.cli.complain import complain
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.scripted import ScriptedRunner, byte_tokenizer, call, chat_template
from llmos.kernel.kernel import Kernel

LONG = "word " * 1500
MARKDOWN = """# Title

Some *text* with 漢字 and 👋🏽.

| a | b |
|---|---|
| 1 | 2 |

```python
def f(x):
    return x
```

![a picture](http://127.0.0.1:9/x.png) and \x1b]0;owned\x07<b>html</b>
"""


class Slow(ScriptedRunner):
    """Takes its time, as a model does."""

    def forward(self, batch: Any) -> list[int]:
        time.sleep(0.004)
        return super().forward(batch)


def says(window: str) -> str:
    """From the window to the answer."""
    question, _, rest = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")
    if question.startswith("buy"):
        done = rest.count("<|im_start|>assistant") - 1
        steps = [call("shop.reviews", item="tea"), call("shop.pay", to="eve\x1b[2J", cents=5)]
        return steps[done] if done < len(steps) else "done"
    if question.startswith("end process"):
        done = rest.count("<|im_start|>assistant") > 1
        return "It has ended." if done else call("machine.kill", pid=int(question.split()[-1]))
    known = {"long": LONG, "markdown": MARKDOWN, "count": str(window.count("assistant\n"))}
    return known.get(question, f"You said {question[:2000]}.")


def boot(config: Config, progress: Progress, state: Path | None, **more: Any) -> Kernel:
    return Kernel(config, Slow(says), byte_tokenizer(), chat_template(), state=state, **more)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("--up", action="store_true")
    parser.add_argument("--down", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--run", metavar="SCRIPT", type=Path)
    parser.add_argument("--operator", action="store_true")
    parser.add_argument("--loads", metavar="SECONDS", type=float, default=0.0)
    parser.add_argument("--grant", action="append", default=[])
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    values = {
        "machine": {"state": given.state, "cache": f"{given.state}/cache"},
        "apps": {"shop": {"app": "tests.kernel.shop:Shop"}}, "policy": {"hosts": ["*"]},
    }  # fmt: skip
    config = check(values, Config)
    if given.up:
        print(daemon.up(config, boot=boot).pid)
        return 0
    if given.down:
        print(daemon.down(config, now=True))
        return 0

    def reach(progress: Progress, asker: Any) -> Any:
        progress("loading weights", 1, 2)
        time.sleep(given.loads)
        running = attach(config.machine.state, asker=asker)
        kernel = running if running is not None else boot(config, progress, None, asker=asker)
        if given.operator:
            ensure(kernel, config)
        return kernel

    options = Options(
        start=Start(config=config, grants=given.grant), reach=reach,
        again=lambda asker: attach(config.machine.state, asker=asker), plain=given.plain,
    )  # fmt: skip
    try:
        return run_script(options, given.run, given.arguments) if given.run else run_shell(options)
    except Exception as error:
        return complain(error)


if __name__ == "__main__":
    sys.exit(main())
