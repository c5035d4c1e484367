"""Errors in the protocol's shape.

What: `Refusal`, an error with an HTTP status, and the translation of everything else into one.
Invariant: a client learns what was wrong with its request, and of a mistake of ours only that there was one.
Interface: `Refusal(status, message, …)`, `.body`; `refusal_of(error)`, `wrong(validation_error)`, `location(path)`.

    400 invalid_request_error   malformed, unsupported or impossible; context_length_exceeded
    401 invalid_request_error   no key, or a wrong one         403  a web page, or a strange name for this host
    404 invalid_request_error   no such path or model          413  the body is too large
    429 requests                too many at once               500, 503 server_error
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llmos.abi.errors import (
    Cancelled,
    ConfigError,
    GrammarError,
    LLMOSError,
    ManifestError,
    PoolExhausted,
    ProcessError,
    TemplateError,
    TurnRefused,
    WindowOverflow,
)

_log = logging.getLogger("llmos.serve")


class Refusal(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def too_many(message: str, seconds: int = 1) -> Refusal:
    """The machine is busy; `seconds` is when to come again."""
    return Refusal(
        429, message, type="requests", code="rate_limit_exceeded", headers={"retry-after": str(seconds)}
    )


def refusal_of(error: Exception, param: str | None = None) -> Refusal:
    """The nearest refusal to an error. A mistake of ours goes to the log, not to the client."""
    match error:
        case Refusal():
            return error
        case WindowOverflow():
            return Refusal(400, str(error), param=param, code="context_length_exceeded")
        case TemplateError() | GrammarError() | ManifestError() | ConfigError():
            return Refusal(400, str(error), param=param, code="invalid_value")
        case PoolExhausted() | Cancelled() | TurnRefused():
            return Refusal(503, str(error), type="server_error", code="overloaded")
        case ProcessError():
            return too_many(str(error))
        case LLMOSError():
            return Refusal(500, str(error), type="server_error")
        case _:
            _log.error("a request failed", exc_info=error)
            return Refusal(500, "The server had an error while processing your request.", type="server_error")


def wrong(error: ValidationError, inside: str = "") -> Refusal:
    """What a client has to mend first in a body that does not fit."""
    first = error.errors(include_url=False, include_context=False)[0]
    param, kind = location(first["loc"], inside), first["type"]
    if kind == "missing":
        message, code = f"Missing required parameter: '{param}'.", "missing_required_parameter"
    elif kind == "extra_forbidden":
        message, code = f"Unknown parameter: '{param}'.", "unknown_parameter"
    else:
        said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        code = "invalid_type" if kind.endswith("_type") else "invalid_value"
        message = f"Invalid {code.removeprefix('invalid_')} for '{param}': {said}."
    return Refusal(400, message, param=param or None, code=code)


def location(path: Sequence[int | str], inside: str = "") -> str:
    """`messages[0].content` from ("messages", 0, "content")."""
    text = inside
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
