"""`llmos serve`: the model behind the protocol that most programs speak.

What: boots a kernel and serves it over HTTP until it is told to stop.
Invariant: without a key, on this machine alone. Ctrl-C and SIGTERM end it in good order.
Interface: `add`, `run`. What a server is, is in `llmos.serve`.
"""

from __future__ import annotations

import argparse
import signal
import sys

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar

SECRET = "serve_key"
EXAMPLES = """\
examples:
  llmos serve
  llmos serve --port 9000 --model smollm2-135m
  llmos serve --host 0.0.0.0 --key-file ~/.config/llmos/keys
  curl http://127.0.0.1:8080/v1/models
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=- python my_program.py

It speaks /v1/chat/completions (streaming, tools, JSON schemas), /v1/completions, /v1/embeddings and /v1/models. Keys
come from --key-file (one a line) or from the secret serve_key; whoever has one speaks with your voice. Without a key
every program on this machine may ask, and nobody else. It is plain HTTP: on a network, put a proxy with TLS before it.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "serve", "Serve the model to other programs over HTTP.", EXAMPLES)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host", metavar="H", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)"
    )
    group.add_argument(
        "--port", metavar="N", type=_port, default=8080, help="the port (default 8080; 0 takes a free one)"
    )
    group.add_argument("--key-file", metavar="FILE", help="let in only who sends one of its keys")
    group.add_argument(
        "--requests",
        metavar="N",
        type=options.positive,
        default=32,
        help="answer so many at once (default 32); twice as many may wait",
    )
    options.common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from pathlib import Path

    from llmos.connect import connect, load_config
    from llmos.kernel.secret import secret
    from llmos.serve.gate import read_keys
    from llmos.serve.server import Limits, Server, listen

    config = load_config(arguments.config, model=arguments.model)
    if arguments.key_file is not None:
        keys = read_keys(Path(arguments.key_file).expanduser())
    else:
        key = secret(SECRET, config.machine.state)
        keys = [] if key is None else [key]
    limits = Limits(running=arguments.requests, waiting=2 * arguments.requests)
    bar = Bar(sys.stderr)
    with (
        listen(arguments.host, arguments.port, keyed=bool(keys)) as listening,
        connect(config, attach=False, progress=bar) as kernel,
    ):
        bar.close()
        with Server(kernel, listening, keys=keys, limits=limits) as server:
            signal.signal(signal.SIGTERM, lambda *_: server.stop())
            print(f"{server.model} is served at {server.url} (Ctrl-C stops)", file=sys.stderr, flush=True)
            server.wait()
    return 0


def _port(text: str) -> int:
    """A port, for argparse."""
    value = int(text)
    if not 0 <= value < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {(1 << 16) - 1}")
    return value
