"""The files app keeps what every app has to keep."""

import pytest

from llmos.testing import conformance

pytestmark = pytest.mark.slow

test_it_conforms = conformance(
    "llmos.apps.files:Files",
    examples={
        "files.write": {"path": "a/b.txt", "text": "one\ntwo\n"},
        "files.edit": {"path": "a/b.txt", "old": "two", "new": "2"},
    },
    effects=("none", "read", "write"),
)
