"""llmos: a language model as the kernel of an operating system."""

__version__ = "0.1.0"
