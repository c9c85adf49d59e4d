"""How an application entity is written: dicom://AET@HOST:PORT; and what both of its sides share of pynetdicom."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from medclip.errors import MedclipError, Reason

PIP_LINE = "pip install 'medclip-imaging[dimse]'"
TITLE_VARIABLE = "MEDCLIP_AE_TITLE"
_OWN_TITLE = "MEDCLIP"
_ADDRESS = re.compile(r"dicom:/{1,2}(?!/)")
"""One slash is what `Path("dicom://host")` makes of two."""
_TITLE = re.compile(r"(?! )[ -\[\]-~]{1,16}(?<! )")
"""PS3.5, 6.2: 16 characters at most, no backslash; spaces around it do not count."""
_USUAL = "dicom://AET@HOST:PORT, such as dicom://PACS@10.0.0.5:104"


@dataclass(frozen=True)
class Entity:
    """An application entity."""

    title: str
    host: str
    """"" where none is named."""
    port: int

    def __str__(self) -> str:
        """Return its URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"dicom://{self.title}@{host}:{self.port}"


def is_dimse(path: object) -> TypeGuard[str | Path]:
    """Whether a path or text names an application entity.

    Example:
        >>> is_dimse("dicom://PACS@localhost:104"), is_dimse("dicomweb://localhost"), is_dimse("studies/")
        (True, False, False)
    """
    return isinstance(path, (str, Path)) and _ADDRESS.match(str(path)) is not None


def entity_of(path: str | Path) -> Entity:
    """Read the address of an application entity.

    Raises:
        MedclipError: WRONG_USE where title or port are missing or cannot be, and for anything beside them.

    Example:
        >>> entity_of("dicom://PACS@10.0.0.5:104")
        Entity(title='PACS', host='10.0.0.5', port=104)
    """
    rest = _ADDRESS.sub("", str(path), count=1)
    return _entity(rest, f"dicom://{rest}", _USUAL)


def parse_senders(texts: tuple[str, ...]) -> dict[str, Entity | None]:
    """Read which application entities may send: AET, or AET@HOST:PORT where results of storage commitment go to.

    Raises:
        MedclipError: WRONG_USE.

    Example:
        >>> parse_senders(("CT1", "PACS@10.0.0.5:104"))
        {'CT1': None, 'PACS': Entity(title='PACS', host='10.0.0.5', port=104)}
    """
    senders: dict[str, Entity | None] = {}
    for text in texts:
        title, at, _ = text.rpartition("@")
        if at:
            entity = _entity(text, text, "AET, or AET@HOST:PORT")
            if not entity.host:
                raise _no_entity(text, "AET, or AET@HOST:PORT")
            senders[entity.title] = entity
        else:
            title = text.strip()
            if not _TITLE.fullmatch(title):
                raise _no_entity(text, "AET, or AET@HOST:PORT")
            senders.setdefault(title, None)
    return senders


def own_title() -> str:
    """Return the title that is called from: that of MEDCLIP_AE_TITLE, or MEDCLIP.

    Raises:
        MedclipError: WRONG_USE for a value that is no title.
    """
    title = os.environ.get(TITLE_VARIABLE, "").strip() or _OWN_TITLE
    if not _TITLE.fullmatch(title):
        raise MedclipError(
            Reason.WRONG_USE, f"{TITLE_VARIABLE} is no AE title: 1 to 16 plain characters without a backslash."
        )
    return title


def _entity(rest: str, text: str, usual: str) -> Entity:
    try:
        parts = urlsplit(f"//{rest}")
        title, host, port = unquote(parts.username or "").strip(), parts.hostname or "", parts.port
    except ValueError:
        raise _no_entity(text, usual) from None
    if not _TITLE.fullmatch(title) or not port or parts.password is not None:
        raise _no_entity(text, usual)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise _no_entity(text, usual)
    return Entity(title, host, port)


def _no_entity(text: str, usual: str) -> MedclipError:
    return MedclipError(
        Reason.WRONG_USE,
        "this names no application entity: an AE title of 1 to 16 characters, and a port.",
        where=text,
        hint=f"Write it as {usual}.",
    )


def protocol() -> Any:
    """Return pynetdicom, which speaks it.

    Raises:
        MedclipError: MISSING_CODEC where it is not installed.
    """
    try:
        import pynetdicom
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC, "DIMSE needs a package that is not installed.", hint=f"Run: {PIP_LINE}"
        ) from None
    return pynetdicom


@contextmanager
def unheard() -> Iterator[None]:
    """Have pynetdicom log nothing: its messages quote UIDs, titles and addresses."""
    from pynetdicom import _config

    logger = logging.getLogger("pynetdicom")
    before, handlers = logger.level, _config.LOG_HANDLER_LEVEL
    logger.setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"
    try:
        yield
    finally:
        logger.setLevel(before)
        _config.LOG_HANDLER_LEVEL = handlers
