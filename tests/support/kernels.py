"""The splice kernel in each form that there is: its source interpreted, and compiled where it was built."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

import govbus
from govbus import splice as installed

SOURCE = Path(govbus.__file__).with_name("splice.py")


def interpreted(source: Path) -> ModuleType:
    """A kernel's source as an interpreted module of its own, beside the installed one."""
    name = f"govbus_{source.stem}_interpreted"
    loader = SourceFileLoader(name, str(source))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


INTERPRETED = interpreted(SOURCE)
KERNELS = [pytest.param(INTERPRETED, id="interpreted")]
if installed.COMPILED:
    KERNELS.append(pytest.param(installed, id="compiled"))
STALE = installed.COMPILED and Path(str(installed.__file__)).stat().st_mtime < SOURCE.stat().st_mtime
"""Whether the compiled kernel is older than its source: ``python hatch_build.py`` builds it anew."""
