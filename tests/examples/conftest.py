"""Fixtures of the examples' tests."""

from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]
