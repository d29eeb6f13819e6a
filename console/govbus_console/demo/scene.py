"""Where the demo takes place: files below the home, and the processes of five departments.

::

    <home>/demo/catalogue.yaml           what is applied
    <home>/demo/<department>/system.db   the department's own system, which knows of no bus
    <home>/demo/<department>/landed.db   what the bus has brought it
    <home>/demo/<department>/*.yaml      how it captures and lands

A second demo in the same home goes on with all of it: the departments take over
the first edition again as one more change of their tables. A grant that an
earlier demo revoked stays revoked; it is asked for again, and its successor has another id.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from govbus_console.demo.divisions import Detail
from govbus_console.embedded.home import Home

OWNERS = ("stats", "civil")
SUBSCRIBERS = ("civil", "health", "quzhou", "tax")
_SWEEP_EVERY = {Detail.AREAS: 5, Detail.STREETS: 10, Detail.VILLAGES: 50}
"""Every so many polls the bureau's table is read whole, which is how deletes are found."""

_REGISTER_SWEEP_EVERY = 10
_POLL_SECONDS = 0.2


def sweep_every(resource: str, detail: Detail) -> int:
    """Say after how many polls of a resource at most its whole table has been read."""
    return {"stats.divisions": _SWEEP_EVERY[detail], "civil.residents": _REGISTER_SWEEP_EVERY}.get(
        resource, 1
    )


class Scene:
    """The demo's files below a home."""

    def __init__(self, home: Home) -> None:
        self.folder = home.root / "demo"

    def system(self, department: str) -> Path:
        """Name the database of a department's own system."""
        return self._of(department) / "system.db"

    def landed(self, department: str) -> Path:
        """Name the database where a department lands."""
        return self._of(department) / "landed.db"

    def write_capture(self, department: str, detail: Detail) -> Path:
        """Write how a department captures, and return the file."""
        whole = {"mode": "hash", "changed_at": "updated_at", "interval_seconds": _POLL_SECONDS}

        def changing(resource: str) -> dict[str, object]:
            # These departments write one transaction at a time, and each takes its time of change once it
            # has begun: nothing commits behind the highest value, so no overlap is needed.
            column = {"mode": "column", "column": "updated_at", "overlap": 0}
            return {**whole, **column, "sweep_every": sweep_every(f"{department}.{resource}", detail)}

        resources = {
            "stats": {"divisions": {"table": "divisions", **changing("divisions")}},
            "civil": {
                "residents": {"table": "residents", **changing("residents")},
                "marriages": {"table": "marriages", **whole},
                "protected-persons": {"table": "protected_persons", **whole},
            },
        }[department]
        return self._write(
            department,
            "capture.yaml",
            {
                "department": department,
                "source": f"sqlite:///{self.system(department)}",
                "state": str(self._of(department) / "capture"),
                "resources": resources,
            },
        )

    def write_land(self, department: str) -> Path:
        """Write where a department lands, and return the file."""
        sink = f"sqlite:///{self.landed(department)}"
        return self._write(department, "land.yaml", {"department": department, "sink": sink})

    def write_catalogue(self) -> Path:
        """Write the catalogue, departments and resources, and return the file."""
        target = self.folder / "catalogue.yaml"
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shipped = Path(__file__).parent / "catalogue.yaml"
        target.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
        return target

    def write_forbidden_grant(self) -> Path:
        """Write a catalogue that grants a withheld resource, which nobody may."""
        target = self.folder / "forbidden.yaml"
        entry = {
            "id": "protected-for-tax",
            "subscriber": "tax",
            "resource": "civil.protected-persons",
            "fields": ["case_number"],
            "rows": "all",
            "purpose": "None that counts",
            "term_days": 1,
        }
        target.write_text(yaml.safe_dump({"grants": [entry]}, sort_keys=False), encoding="utf-8")
        return target

    def _of(self, department: str) -> Path:
        folder = self.folder / department
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _write(self, department: str, name: str, content: object) -> Path:
        target = self._of(department) / name
        target.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return target
