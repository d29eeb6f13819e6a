"""The owners' changes: keyed creates, updates and deletes, and events, until a pause is asked for."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

from chaos.control import Owner
from chaos.model import Written
from chaos.views import CITIES, NAMES
from govbus.codec import encode

_STEP_SECONDS = 0.05
_KEYS = 150
_DELETED = 0.15
_TWO_HOURS_MS = 7_200_000


class Traffic:
    """Writes to every owner's resource from a thread of its own."""

    def __init__(self, dice: random.Random, owners: Sequence[Owner], *, rate: int) -> None:
        self._dice = dice
        self._owners = owners
        self._rate = rate
        # Far enough back that the timestamps, one for each record, never reach the future.
        self._at = int(time.time() * 1_000) - _TWO_HOURS_MS
        self._go = threading.Event()
        self._end = threading.Event()
        self._writing = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._go.set()
        self._thread.start()

    def burst(self, records: int) -> None:
        """Write many at once."""
        with self._writing:
            for _ in range(records):
                self._write(self._dice.choice(self._owners))

    def pause(self) -> None:
        """Stop writing, and wait until the broker has acknowledged everything."""
        self._go.clear()
        with self._writing:
            for owner in self._owners:
                owner.flush()
        if self._failure is not None:
            raise self._failure

    def go_on(self) -> None:
        """Write again."""
        self._go.set()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._go.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self._go.wait()
                with self._writing:
                    if self._go.is_set() and not self._end.is_set():
                        for _ in range(max(1, round(self._rate * _STEP_SECONDS))):
                            self._write(self._dice.choice(self._owners))
                time.sleep(_STEP_SECONDS)
        except BaseException as error:
            self._failure = error

    def _write(self, owner: Owner) -> None:
        dice, source = self._dice, owner.records
        self._at += 1
        if source.event:
            number = len(source)
            code, gone = f"e{number}", False
        else:
            number = dice.randrange(_KEYS)
            code, gone = f"k{number}", dice.random() < _DELETED
        partition = number % source.partitions
        row = None
        if not gone:
            row = {
                "code": code,
                "name": dice.choice(NAMES),
                "city": dice.choice(CITIES),
                "staff": dice.randrange(100),
            }
        source.add(partition, Written(code=code, row=row, at=self._at))
        value = None if row is None else encode(owner.value, row)
        owner.put_bytes(encode(owner.key, {"code": code}), value, partition, timestamp_ms=self._at)
