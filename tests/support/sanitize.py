"""Run the kernel's tests under AddressSanitizer: no byte outside a record may be read, and none written.

    python tests/support/sanitize.py [pytest arguments]

Needs gcc with libasan. Works on a copy, so the kernel that is installed stays
as it is. Python's own allocator is switched off, because inside its arenas
AddressSanitizer would see nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/unit/test_splice.py", "tests/property/test_splice.py")
FLAGS = (
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-omit-frame-pointer",
    "-fwrapv",
    "-fPIC",
    "-shared",
)


def build(place: Path) -> None:
    """Compile the kernel with the sanitizers next to a copy of the package."""
    package = place / "core" / "govbus"
    shutil.copytree(ROOT / "core" / "govbus", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    source = package / "splice.c"
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", "govbus.splice"]
    subprocess.run([*cython, str(package / "splice.py"), "-o", str(source)], check=True)
    target = package / f"splice{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(["gcc", *FLAGS, include, str(source), "-o", str(target)], check=True)


def main(arguments: list[str]) -> int:
    """Build, test, and pass on what the tests say."""
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as place:
        build(Path(place))
        environment = os.environ | {
            "PYTHONPATH": str(Path(place) / "core"),
            "PYTHONMALLOC": "malloc",
            "LD_PRELOAD": library,
            # Python frees nothing at exit, so leaks would be all that is reported.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
