"""The kernel's tests use the fixture that authors of apps use."""

from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]
