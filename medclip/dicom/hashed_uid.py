"""UIDs made of what an object holds, so that the same object has the same UID wherever and whenever it is written."""

from __future__ import annotations

import hashlib
from uuid import UUID


def hashed_uuid(*parts: str) -> UUID:
    """Return a UUID made of a hash (RFC 9562, version 8)."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).digest()
    value = bytearray(digest[:16])
    value[6] = value[6] & 0x0F | 0x80
    value[8] = value[8] & 0x3F | 0x80
    return UUID(bytes=bytes(value))


def hashed_uid(*parts: str) -> str:
    """Return a UID made of a hash: 2.25 and a UUID as a number (PS3.5, B.2).

    Example:
        >>> hashed_uid("a", "b") == hashed_uid("a", "b") != hashed_uid("ab")
        True
        >>> hashed_uid("a").startswith("2.25.") and len(hashed_uid("a")) <= 64
        True
    """
    return f"2.25.{hashed_uuid(*parts).int}"
