"""The web of an expert's tests: a folder, served on this machine while they run.

What: a server on the loopback, and the configuration by which the browser reaches and searches it.
Invariant: it serves nothing but files below that folder, to this machine alone, and ends with the tests. Experts whose
    tests name no site get the configuration as it is.
Interface: `served(expert, config)`, a context manager: `(config, {folder: address})`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from llmos.abi.config import AppConfig
from llmos.apps.experts.errors import ExpertError, KnowledgeGone

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.apps.experts.expert import Expert


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""


@contextmanager
def served(expert: Expert, config: Config) -> Iterator[tuple[Config, Mapping[str, str]]]:
    """Serve the site of the expert's tests.

    Raises:
        ExpertError: the tests name several sites. KnowledgeGone: it is not there.
    """
    sites = {case.site for case in expert.manifest.tests if case.site is not None}
    if not sites:
        yield config, {}
        return
    if len(sites) > 1:
        raise ExpertError(
            f"the tests of {expert.name} name {len(sites)} sites", why="one is served while they run",
            do="put them into one folder",
        )  # fmt: skip
    (site,) = sites
    try:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    except OSError as error:
        raise KnowledgeGone(f"{site} cannot be served", why=str(error)) from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="llmos-site", daemon=True)
    thread.start()
    place = f"127.0.0.1:{server.server_port}"
    here = {"allow": [place], "search": "index", "index": site, "base": f"http://{place}/"}
    try:
        browser = AppConfig.model_validate(here)
        yield (
            config.model_copy(update={"apps": {**config.apps, "browser": browser}}),
            {site: f"http://{place}"},
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
