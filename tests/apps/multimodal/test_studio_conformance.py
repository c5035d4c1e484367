"""The studio keeps what every app has to keep."""

import pytest

from llmos.testing import conformance

pytestmark = pytest.mark.slow

test_it_conforms = conformance("llmos.apps.multimodal.studio:Studio")
