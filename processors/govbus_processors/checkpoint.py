"""Key sets on disk, so that a restart reads only the tail of a delivery topic. Does I/O.

A checkpoint says: "with everything in this delivery topic before this offset
taken into account, these keys were in the view". It only ever saves time: one
that is missing, cut short, of another topic or made by another algorithm is not
used, and the topic is read from its start.

A file is written aside, synced and renamed, so a crash leaves the old one or
the new one, and it ends with a digest over everything before. It names the
topic's id as well as its name: a topic that was deleted and made again under
the same name counts its offsets anew.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from govbus_processors.keyset import ALGORITHM, KeySet

if TYPE_CHECKING:
    from govbus_processors.batch import Place

_log = logging.getLogger(__name__)
_FORMAT = 1
_DIGEST_BYTES = 32


class Checkpoints:
    """The checkpoints of one worker, one file per delivery topic and partition."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing: threading.Thread | None = None

    def load(self, place: Place, topic_id: str) -> KeySet | None:
        """Return the key set as it was saved, with its position; None where there is none to rely on."""
        try:
            data = self._file(place).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("checkpoint cannot be read", extra={"topic": place[0], "detail": error.strerror})
            return None
        try:
            return _parse(data, self._about(place, topic_id))
        except (ValueError, KeyError, TypeError):
            _log.warning("checkpoint not used", extra={"topic": place[0], "partition": place[1]})
            return None

    def save(self, place: Place, topic_id: str, keys: KeySet, position: int) -> None:
        """Save a key set as of ``position``; the disk is written behind the caller's back."""
        self.wait()
        about = self._about(place, topic_id) | {
            "position": position,
            "seed": keys.seed.hex(),
            "count": len(keys),
        }
        digests = keys.dump()
        self._writing = threading.Thread(target=self._write, args=(self._file(place), about, digests))
        self._writing.start()

    def wait(self) -> None:
        """Wait until what was saved is on disk."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def forget(self, place: Place) -> None:
        """Remove a checkpoint; it does not matter if there is none."""
        self._file(place).unlink(missing_ok=True)

    def _file(self, place: Place) -> Path:
        return self._folder / f"{place[0]}-{place[1]}.keys"

    def _about(self, place: Place, topic_id: str) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "topic": place[0],
            "partition": place[1],
            "topic_id": topic_id,
            "algorithm": ALGORITHM,
        }

    def _write(self, file: Path, about: dict[str, Any], digests: bytes) -> None:
        header = json.dumps(about).encode() + b"\n"
        checksum = blake2b(header, digest_size=_DIGEST_BYTES)
        checksum.update(digests)
        aside = file.with_suffix(f".{os.getpid()}.new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with aside.open("wb") as out:
                out.write(header)
                out.write(digests)
                out.write(checksum.digest())
                out.flush()
                os.fsync(out.fileno())
            aside.replace(file)
        except OSError as error:
            # The disk is full, perhaps. A restart then reads more; nothing else depends on it.
            _log.warning("checkpoint not written", extra={"path": str(file), "detail": error.strerror})
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def _parse(data: bytes, expected: dict[str, Any]) -> KeySet:
    end = data.index(b"\n") + 1
    body = memoryview(data)[:-_DIGEST_BYTES]  # not a copy: it may be hundreds of megabytes
    if blake2b(body, digest_size=_DIGEST_BYTES).digest() != data[-_DIGEST_BYTES:]:
        raise ValueError("the checksum is wrong")
    about = json.loads(data[:end])
    if any(about[name] != value for name, value in expected.items()):
        raise ValueError("a checkpoint of something else")
    keys = KeySet(bytes.fromhex(about["seed"]))
    keys.restore(bytes(body[end:]))
    if len(keys) != about["count"]:
        raise ValueError("another number of keys")
    keys.position = int(about["position"])
    return keys
