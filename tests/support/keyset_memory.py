"""Measures a key set in a process of its own: ``python keyset_memory.py KEYS``, prints JSON.

Bytes are of the process, as the kernel counts them (``/proc/self/status``): ``VmRSS``
now and ``VmHWM`` at most, above what the process had before the first key.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from govbus_processors.checkpoint import Checkpoints
from govbus_processors.keyset import KeySet

_PLACE = ("govbus.delivered.tax.tax-firms", 0)


def memory(what: str) -> int:
    """One of the kernel's figures about this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(what)


def forget_the_peak() -> None:
    """Let ``VmHWM`` begin again from what is used now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main(keys: int) -> None:
    """Grow a set past a resize, save it, load it; say what each took."""
    before = memory("VmRSS")
    held = KeySet()
    grown: list[dict[str, int]] = []
    size = held.bytes_used
    for number in range(keys):
        if (number & 1023) == 0:
            forget_the_peak()
        held.load(b"%d" % number, present=True)
        if held.bytes_used != size:
            size = held.bytes_used
            grown.append({"keys": len(held), "table": size, "peak": memory("VmHWM") - before})
    full = {"keys": len(held), "table": held.bytes_used, "rss": memory("VmRSS") - before}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        forget_the_peak()
        checkpoints.save(_PLACE, "topic", held, 1)
        checkpoints.wait()
        saving = memory("VmHWM") - before
        del held
        forget_the_peak()
        loaded = checkpoints.load(_PLACE, "topic")
        loading = memory("VmHWM") - before
    assert loaded is not None
    assert len(loaded) == keys
    json.dump({"grown": grown, "full": full, "saving": saving, "loading": loading}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
