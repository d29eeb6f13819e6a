"""Read the key of one row as a person types it, by the types that the contract gives its key fields.

    stats.divisions/330802
    civil.residents/id_number=110101199003074514
    registrar.shares/firm=91330800MA0000001X,since=2024-05-01
    registrar.notes/title='it''s a, b = c'

1. What stands before the first ``/`` is the resource, everything behind it is the key.
2. ``field=value`` for each key field, joined by commas, in any order; all of them, each once.
3. A key of one field may be written as its value alone. A value that begins like ``field=`` has to be quoted.
4. A value in double or single quotes may hold anything; the quote itself is written twice. A bare value
   goes on to the next comma, which ends nothing where the key is a value alone.
5. Whole numbers are digits with a minus, booleans ``true`` or ``false``, bytes ``0x`` and hexadecimal digits,
   dates and moments ISO 8601 (a moment with its zone).

Errors say what to write and never repeat a value: a key may name a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn
from uuid import UUID

from govbus.contract import DataContract
from govbus.errors import RefusedError
from govbus.topics import is_name
from govbus.valuekind import LEAST, value_kind

_FIELD = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"|\'((?:[^\']|\'\')*)\'')
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_HEX = re.compile(r"0x((?:[0-9A-Fa-f]{2})*)")


def split_record(text: str) -> tuple[str, str]:
    """Split ``OWNER.RESOURCE/KEY`` into the resource's ref and the text of the key.

    Raises:
        RefusedError: it is not written so.
    """
    ref, slash, key = text.partition("/")
    owner, dot, resource = ref.partition(".")
    if not (slash and dot and is_name(owner) and is_name(resource)):
        raise RefusedError("a record is written OWNER.RESOURCE/KEY, e.g. stats.divisions/330802")
    if not key.strip():
        raise RefusedError(f"the key is missing: write {ref}/KEY")
    return ref, key


def parse_key(text: str, contract: DataContract) -> dict[str, object]:
    """Read a key; returns the key fields in contract order, each as its Avro type has it in Python.

    Raises:
        RefusedError: a field is missing, unknown, there twice, or not what its type says.
    """
    texts = _texts(text, contract)
    missing = [name for name in contract.key if name not in texts]
    if missing:
        _refuse(contract, f"{', '.join(missing)} is missing")
    return {
        name: _value(texts[name], contract.field(name).avro_type, name, contract) for name in contract.key
    }


def _texts(text: str, contract: DataContract) -> Mapping[str, str]:
    named = _FIELD.match(text)
    alone = len(contract.key) == 1
    if alone and (named is None or named[1] != contract.key[0]):
        quoted = _QUOTED.fullmatch(text.strip())
        return {contract.key[0]: text if quoted is None else _unquoted(quoted)}
    found: dict[str, str] = {}
    place = 0
    while True:
        named = _FIELD.match(text, place)
        if named is None:
            _refuse(contract, f"at character {place + 1} there is no field=value")
        name = named[1]
        if name not in contract.key:
            _refuse(contract, f"{name!r} is not a key field")
        if name in found:
            _refuse(contract, f"{name!r} is there twice")
        found[name], place = _one(text, named.end(), name, contract)
        if place == len(text):
            return found
        place += 1


def _one(text: str, start: int, name: str, contract: DataContract) -> tuple[str, int]:
    """Return one value, and the place of the comma behind it or the end."""
    if text[start : start + 1] in ('"', "'"):
        quoted = _QUOTED.match(text, start)
        if quoted is None:
            _refuse(contract, f"the quote of {name!r} is not closed")
        end = quoted.end()
        while end < len(text) and text[end] == " ":
            end += 1
        if end < len(text) and text[end] != ",":
            _refuse(contract, f"behind the quoted value of {name!r} must be a comma or nothing")
        return _unquoted(quoted), end
    end = text.find(",", start)
    end = len(text) if end < 0 else end
    return text[start:end].rstrip(), end


def _unquoted(quoted: re.Match[str]) -> str:
    if quoted[1] is not None:
        return quoted[1].replace('""', '"')
    return quoted[2].replace("''", "'")


def _value(text: str, avro_type: Any, name: str, contract: DataContract) -> object:
    kind = value_kind(avro_type)
    read = _READERS.get(kind)
    if read is None:
        _refuse(contract, f"{name!r} is of type {kind}, which cannot be typed")
    reader, wanted = read
    try:
        value = reader(text)
        if kind in LEAST and not LEAST[kind] <= value < -LEAST[kind]:
            raise ValueError
    except (ValueError, InvalidOperation):
        pass  # Said below, without the exception: its text quotes the value.
    else:
        return value
    _refuse(contract, f"{name!r} must be {wanted}")


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text.strip()) is None:
        raise ValueError
    return int(text)


def _boolean(text: str) -> bool:
    if text.strip() not in ("true", "false"):
        raise ValueError
    return text.strip() == "true"


def _bytes(text: str) -> bytes:
    match = _HEX.fullmatch(text.strip())
    if match is None:
        raise ValueError
    return bytes.fromhex(match[1])


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _local(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is not None:
        raise ValueError
    return moment


_READERS: Mapping[str, tuple[Any, str]] = {
    "string": (str, "text"),
    "int": (_whole, "a whole number of 32 bits"),
    "long": (_whole, "a whole number of 64 bits"),
    "boolean": (_boolean, "true or false"),
    "bytes": (_bytes, "0x and hexadecimal digits, two for each byte"),
    "date": (lambda text: date.fromisoformat(text.strip()), "a date, e.g. 2024-05-01"),
    "time": (lambda text: time.fromisoformat(text.strip()), "a time of day, e.g. 08:30:00"),
    "timestamp": (_moment, "a moment with its zone, e.g. 2024-05-01T08:00:00+08:00"),
    "local-timestamp": (_local, "a moment without zone, e.g. 2024-05-01T08:00:00"),
    "decimal": (lambda text: Decimal(text.strip()), "a number"),
    "uuid": (lambda text: UUID(text.strip()), "a UUID"),
}


def _refuse(contract: DataContract, why: str) -> NoReturn:
    shape = ",".join(f"{name}=…" for name in contract.key)
    raise RefusedError(f"the key of {contract.owner}.{contract.resource} is written {shape}: {why}")
