"""How a server and a selection of its studies are written: dicomweb://HOST[:PORT]/PATH, and KEY=VALUE,KEY=VALUE."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.stores import RemotePath, place_of

_ADDRESS = re.compile(r"dicomweb(s?):/{1,2}(?!/)")
"""One slash is what `Path("dicomweb://host")` makes of two."""
_NEXT = re.compile(r",(?=\s*[A-Za-z0-9]+=)")
"""A comma in front of a key; others belong to a value."""
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_PARAMETERS = {"limit", "offset", "includefield", "fuzzymatching"}
_USUAL = "StudyDate=20240101-20240131,ModalitiesInStudy=CR"
CREDENTIALS = (
    "Credentials come from MEDCLIP_DICOMWEB_USER and MEDCLIP_DICOMWEB_PASSWORD, from MEDCLIP_DICOMWEB_TOKEN (a bearer "
    "token), or from ~/.netrc."
)


def is_dicomweb(path: object) -> TypeGuard[str | Path]:
    """Whether a path or text names a server of DICOMweb.

    Example:
        >>> is_dicomweb("dicomweb://localhost:8042/dicom-web"), is_dicomweb("studies/")
        (True, False)
    """
    return isinstance(path, (str, Path)) and str(path).startswith(("dicomweb:/", "dicomwebs:/"))


def address_of(path: str | Path) -> RemotePath:
    """Return the URL that requests go to: dicomweb:// is http://, and dicomwebs:// is https://.

    Raises:
        MedclipError: WRONG_USE for a URL with a user, a password, a query or a fragment in it, or without a host.

    Example:
        >>> str(address_of("dicomwebs://pacs.example/dicom-web/"))
        'https://pacs.example/dicom-web'
    """
    text = str(path)
    match = _ADDRESS.match(text)
    rest = text[match.end() :] if match is not None else ""
    parts = urlsplit(f"//{rest}")
    if match is None or not parts.hostname:
        raise MedclipError(
            Reason.WRONG_USE, "a server is named as dicomweb://HOST:PORT/PATH, or dicomwebs:// for https.", where=text
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise MedclipError(
            Reason.WRONG_USE,
            "the URL holds a user, a password, a query or a fragment, which would be written down with it.",
            where=f"dicomweb{match[1]}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            hint=f"Leave them out. {CREDENTIALS} Which studies is said with --query.",
        )
    place = place_of(f"http{match[1]}://{rest}")
    assert isinstance(place, RemotePath)
    return place


def parse_query(query: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Read which studies are wanted, as QIDO matches them (PS3.18, 8.3.4).

    Args:
        query: "ModalitiesInStudy=CR,StudyDate=20240101-20240131": keywords of DICOM, or tags of eight digits, and
            their values; several such texts; or a mapping.

    Returns:
        Keywords and values, sorted by keyword.

    Raises:
        MedclipError: WRONG_USE.

    Example:
        >>> parse_query("StudyDate=20240101-20240131,ModalitiesInStudy=CR")
        {'ModalitiesInStudy': 'CR', 'StudyDate': '20240101-20240131'}
    """
    texts = (query,) if isinstance(query, str) else tuple(query)
    is_mapping = isinstance(query, Mapping)
    pairs = list(query.items()) if is_mapping else [_pair(each) for text in texts for each in _NEXT.split(text)]
    values: dict[str, str] = {}
    for key, value in pairs:
        _check_key(key)
        if not str(value) or key in values:
            what = "named twice" if key in values else "empty"
            raise MedclipError(Reason.WRONG_USE, f"{key} is {what} in the query.", hint=f"Write it as {_USUAL}.")
        values[key] = str(value)
    return dict(sorted(values.items()))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.strip().partition("=")
    if not equals:
        raise MedclipError(
            Reason.WRONG_USE,
            "the query is no list of KEY=VALUE: it says which studies are wanted.",
            hint=f"Write it as --query {_USUAL}.",
        )
    return key.strip(), value.strip()


def _check_key(key: str) -> None:
    from pydicom.datadict import keyword_dict, tag_for_keyword

    if _TAG.fullmatch(key) or (key not in _PARAMETERS and tag_for_keyword(key) is not None):
        return
    raise MedclipError(
        Reason.WRONG_USE, f"there is no DICOM attribute {key!r} to ask for.", hint=did_you_mean(key, keyword_dict)
    )
