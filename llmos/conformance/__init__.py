"""The conformance suite: what any app has to keep, tried on the app itself, in processes of its own.

What: examines an app (an installed one, or `module:Class`) through the app host that the kernel uses: nine checks,
    each a function from a running `Subject` to what it found.
Invariant: an app is run, never trusted: whatever it does, there is a report. Only syscalls of effect none and read are
    called unless the author says otherwise or gives an example; what was not called is said. No weights, no jax.
Interface: `examine(app, examples=, effects=, only=) -> Report`; `CHECKS`, name -> what it is about. For pytest:
    `llmos.testing.conformance(app, ...)`; on the command line: `llmos app test NAME`.
"""

from __future__ import annotations

from llmos.conformance.examine import CHECKS, examine
from llmos.conformance.findings import Finding, Report
from llmos.conformance.subject import QUIET, Examples

__all__ = ["CHECKS", "QUIET", "Examples", "Finding", "Report", "examine"]
