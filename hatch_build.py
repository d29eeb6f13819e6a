"""Compile the kernels while a wheel, or an editable install, is built.

A kernel is ordinary Python that Cython also understands. Where a C compiler is
at hand it becomes an extension module next to its source; where none is, the
build goes on and the same file runs interpreted: slower, and right.
Set ``GOVBUS_REQUIRE_COMPILED=1`` to make a missing compiler an error.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = (
    "core/govbus/splice.py",
    "core/govbus/compiledview.py",
    "processors/govbus_processors/bulk.pyx",
    "processors/govbus_processors/keyset.py",
    "processors/govbus_processors/slicework.py",
)


def compile_kernels(root: Path) -> bool:
    """Compile every kernel next to its source; say whether that worked."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    previous = Path.cwd()
    _remove_others(root)
    try:
        os.chdir(root)
        extensions = [
            Extension(".".join(Path(kernel).with_suffix("").parts[1:]), [kernel], extra_compile_args=["-O3"])
            for kernel in KERNELS
        ]
        modules = cythonize(
            extensions,
            language_level=3,
            build_dir=str(root / "build" / "cython"),
            include_path=sorted({Path(kernel).parts[0] for kernel in KERNELS}),
        )
        packages = {Path(kernel).parts[1]: str(Path(kernel).parent) for kernel in KERNELS}
        command = build_ext(Distribution({"ext_modules": modules, "package_dir": packages}))
        command.inplace = True
        command.build_temp = str(root / "build" / "temp")
        command.ensure_finalized()
        command.run()
    except Exception as error:  # whatever the tool chain raises, the interpreted kernels still work
        if os.environ.get("GOVBUS_REQUIRE_COMPILED") == "1":
            raise
        sys.stderr.write(f"govbus: the kernels stay interpreted: {error}\n")
        return False
    finally:
        os.chdir(previous)
    return True


def _remove_others(root: Path) -> None:
    """What was a kernel in an earlier version and is none now would be imported before its source."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = {(root / kernel).with_suffix(suffix) for kernel in KERNELS}
    for folder in {kernel.parent for kernel in built}:
        for found in folder.glob(f"*{suffix}"):
            if found not in built:
                found.unlink()


class CompileKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Turns each kernel into an extension module in place, and ships it in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels; mark the wheel as platform-specific when that worked."""
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        root = Path(self.root)
        if not compile_kernels(root):
            return
        build_data["infer_tag"] = True
        build_data["pure_python"] = False
        for kernel in KERNELS:
            built = (root / kernel).with_suffix(suffix)
            target = "/".join(Path(kernel).parts[1:-1])
            if version != "editable":
                build_data["force_include"][str(built)] = f"{target}/{built.name}"


if __name__ == "__main__":  # after a kernel has been changed: compile it anew, without installing anything
    sys.exit(0 if compile_kernels(Path(__file__).resolve().parent) else 1)
