"""Real models from the machine's cache, loaded once; a test whose model is not there is skipped and says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import ModelNotFound
from llmos.drivers.weights import find


@pytest.fixture(scope="session")
def model_path() -> Callable[[str], Path]:
    """The file of a catalogue model that is on this machine."""

    def path(name: str) -> Path:
        try:
            return find(name, fetch=False).path
        except ModelNotFound as error:
            pytest.skip(str(error))

    return path
