"""Kernels whose model says what a test tells it."""

from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]
