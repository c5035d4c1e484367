"""Builds the optional C++ library of the CPU kernels; everything else is in pyproject.toml.

What: asks `drivers/cpu/build.py` for the library, in the wheel or (editable) beside the sources.
Invariant: an installation never fails for want of a compiler, of jaxlib's headers or of a known processor:
    the pure-JAX path runs then, and `llmos.drivers.cpu` says so once.
Interface: `LLMOS_NO_CPU_LIBRARY=1` leaves the library out.
"""

import importlib.util
import os
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

BUILDER = Path(__file__).resolve().parent / "drivers" / "cpu" / "build.py"
WANTED = not os.environ.get("LLMOS_NO_CPU_LIBRARY")


class BuildWithLibrary(build_py):
    """Copies the modules, then builds the library into their midst."""

    def run(self) -> None:
        super().run()
        if not WANTED:
            return
        package = BUILDER.parent if self.editable_mode else Path(self.build_lib, "llmos", "drivers", "cpu")
        spec = importlib.util.spec_from_file_location("llmos_cpu_build", BUILDER)
        assert spec is not None
        assert spec.loader is not None
        builder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(builder)
        try:
            print(f"llmos: the CPU kernels are built: {builder.compile(package / '_build')}")
        except (builder.BuildError, OSError) as error:
            print(f"llmos: the CPU kernels are not built, the pure-JAX path will run: {error}")


class OneWheelForEachPlatform(Distribution):
    """With the library in it, a wheel is for one kind of machine."""

    def has_ext_modules(self) -> bool:
        return WANTED


setup(cmdclass={"build_py": BuildWithLibrary}, distclass=OneWheelForEachPlatform)
