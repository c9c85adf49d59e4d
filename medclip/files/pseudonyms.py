"""Keyed hashes of identifiers: stable within one key, not reversible without it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path

from medclip.errors import MedclipError, Reason, printable
from medclip.files.output import new_file
from medclip.settings import Settings

KEY_BYTES = 32
KEY_NAME = "identity.key"
_log = logging.getLogger(__name__)


def load_key(settings: Settings, *, path: Path | None = None) -> bytes:
    """Load the identity key. The default one is made on first use; one that is named must exist.

    Two processes that start at once get the same key: the first to be in place is that of both. A new key is logged
    with its path, as information, which the commands write on standard error.

    Args:
        settings: Settings whose `home` is the folder of the default key.
        path: Key file in the place of the default one.

    Returns:
        32 bytes.

    Raises:
        MedclipError: PERMISSION_DENIED if the key can be neither read nor made; WRONG_USE if the file is no key, or
            if the one that is named does not exist: a name with a slip in it must not become another key.
    """
    file = path if path is not None else settings.home / KEY_NAME
    try:
        with contextlib.suppress(FileNotFoundError):
            return _checked(file)
        if path is not None:
            raise MedclipError(
                Reason.WRONG_USE,
                "there is no such key file.",
                where=file,
                hint=f"Check the path, or make a key. Run: head -c {KEY_BYTES} /dev/urandom > FILE",
            )
        new = secrets.token_bytes(KEY_BYTES)
        with new_file(file, keep=True, private=True) as draft:
            draft.write_bytes(new)
        key = _checked(file)
        if key == new:
            _log.info(
                "a new identity key was made: %s. Keep it with the data and share it with nobody: with another "
                "one, the hashes of the same patients and studies differ.",
                printable(str(file.absolute())),
            )
        return key
    except OSError as error:
        raise MedclipError(
            Reason.PERMISSION_DENIED,
            f"the identity key can be neither read nor made ({error.strerror}).",
            where=file,
            hint="Set MEDCLIP_HOME to a folder that can be written." if path is None else "Check its permissions.",
        ) from error


def _checked(file: Path) -> bytes:
    key = file.read_bytes()
    if len(key) != KEY_BYTES:
        raise MedclipError(
            Reason.WRONG_USE,
            f"an identity key has {KEY_BYTES} bytes, this file has {len(key)}.",
            where=file,
            hint="Name another key file, or move this one away to have a new key made.",
        )
    return key


def keyed_hash(kind: str, value: str, key: bytes) -> str:
    """Hash an identifier with the key.

    Args:
        kind: Kind of the identifier ("patient", "study", ...), so that equal values of different kinds differ.
        value: The identifier.
        key: Identity key, from `load_key`.

    Returns:
        16 hex characters.
    """
    return hashlib.blake2b(f"{kind}\0{value}".encode("utf-8", "surrogateescape"), key=key, digest_size=8).hexdigest()


def match_patients(patients: Iterable[str], others: Iterable[str], key: bytes | None) -> set[str]:
    """Return the patients that are among others, as identifiers or as keyed hashes on either side.

    Case, blanks around and leading zeros do not count: tables that came through a spreadsheet have lost them.

    Args:
        patients: Identifiers or keyed hashes; empty ones match nothing.
        others: Identifiers or keyed hashes of another set.
        key: Identity key, from `load_key`; None where hashes can be met by equal hashes alone.
    """
    forms = {form for other in others if other for form in _forms(other, key)}
    return {patient for patient in patients if patient and not forms.isdisjoint(_forms(patient, key))}


def _forms(patient: str, key: bytes | None) -> set[str]:
    """Return all that a patient may be written as."""
    plain = patient.strip().casefold().lstrip("0") or patient
    ways = {patient, plain, patient.strip().upper()}
    return {patient, plain} | ({keyed_hash("patient", way, key) for way in ways} if key else set())


_PATH = "path:"


def hashed_path(name: str, key: bytes) -> str:
    """Hash a relative path with the key; what is such a hash already stays as it is.

    Returns:
        "path:" and 16 hex characters.
    """
    digits = name.removeprefix(_PATH)
    if len(name) == len(_PATH) + 16 == len(digits) + len(_PATH) and not set(digits) - set("0123456789abcdef"):
        return name
    return _PATH + keyed_hash("path", name, key)
