"""What goes wrong with pictures and sound.

What: the errors of these drivers and their apps, and how a missing part is told.
Invariant: three parts, as everywhere: what, why, what to do.
Interface: `MediaError`, `NothingSaid`; `part(module)` imports a library of the extra `media`; `model(name)` finds a
    catalogue model.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import AppError, ModelNotFound

if TYPE_CHECKING:
    from llmos.drivers.weights.weights import WeightsFiles


class MediaError(AppError):
    """A picture or sound that cannot be read or made, or a part of this machine that is missing for it."""


class NothingSaid(MediaError):
    """A sound in which nobody speaks."""


def part(module: str) -> Any:
    """A library of the extra `media`.

    Raises:
        MediaError: it is not installed, or does not load.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MediaError(
            f"the library {error.name or module!r} is missing", do="pip install 'llmos[media]'"
        ) from None
    except ImportError as error:  # it is there, and what it needs is not
        raise MediaError(
            f"the library {module!r} does not load",
            why=str(error)[:300],
            do="install what it misses (on Debian: apt-get install libgl1 libglib2.0-0)",
        ) from None


def model(name: str) -> WeightsFiles:
    """The verified files of a catalogue model; nothing is fetched.

    Raises:
        MediaError: it is not on this machine.
    """
    from llmos.drivers.weights import find

    try:
        return find(name, fetch=False)
    except ModelNotFound as error:
        raise MediaError(error.what, why=error.why, do=error.do) from None
