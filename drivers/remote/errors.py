"""What goes wrong with remote models.

AppError
└── RemoteError             anything below
    ├── RemoteUnavailable   no connection, or it is overloaded or broken, after every retry
    ├── RemoteRefused       it understood the request and does not do it: key, model, parameters
    ├── RemoteStalled       nothing came for too long, or all of it took too long
    └── RemoteGarbled       an answer that is no answer: other types, too large, broken off
"""

from llmos.abi.errors import AppError


class RemoteError(AppError):
    """Anything about a remote model."""


class RemoteUnavailable(RemoteError):
    """No connection, or the endpoint is overloaded or broken, after every retry."""


class RemoteRefused(RemoteError):
    """The endpoint understood the request and does not do it."""


class RemoteStalled(RemoteError):
    """Nothing came for too long, or all of it took too long."""


class RemoteGarbled(RemoteError):
    """An answer of the wrong type, too large, or broken off."""
