"""What a record, a resource and a permission are. No I/O, except in the modules that say so."""

from __future__ import annotations

__version__ = "0.1.0"
