"""Objects written to a store: each appears whole, under its name, or not at all.

One request writes an object (of large files one multipart upload, which shows nothing before its end), so that whoever
reads sees what was there before or what is there now. A store has no rename, and needs none.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.stores.remote import RemotePath, client_of, entries_in, patiently, refusal_of


def write_object(place: RemotePath, content: Path | bytes) -> None:
    """Write an object; one that is there is replaced.

    Args:
        place: URL of the object.
        content: A file of this machine, or bytes.

    Raises:
        MedclipError: PERMISSION_DENIED, MISSING_FILE (the bucket), WRITE_ERROR; UNREACHABLE after all attempts.
    """

    def write() -> None:
        client = client_of(place)
        if isinstance(content, bytes):
            client.pipe_file(place.url, content)
        else:
            client.put_file(str(content), place.url)

    patiently(place, write, final=_refusal, gone=Reason.UNREACHABLE, done="written")


def remove_object(place: RemotePath) -> None:
    """Remove an object; one that is not there is left so.

    Raises:
        MedclipError: As `write_object`.
    """

    def remove() -> None:
        with suppress(FileNotFoundError):
            client_of(place).rm_file(place.url)

    patiently(place, remove, final=_refusal, gone=Reason.UNREACHABLE, done="removed")


def objects_below(place: RemotePath) -> dict[str, int]:
    """List all objects below a folder of a store: names relative to it, and bytes.

    Raises:
        MedclipError: As `medclip.files.stores.remote.entries_in`.
    """
    objects: dict[str, int] = {}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for name, is_folder, size in entries_in(place / folder if folder else place):
            if name is None:
                continue
            full = f"{folder}/{name}" if folder else name
            if is_folder:
                waiting.append(full)
            else:
                objects[full] = size
    return objects


def _refusal(error: Exception, place: RemotePath) -> MedclipError | None:
    """Return the refusal for a fault that no new attempt mends, in words of writing."""
    refused = refusal_of(error, place)
    if refused is None or refused.reason is Reason.MISSING_FILE:
        return refused
    if refused.reason is Reason.PERMISSION_DENIED:
        return MedclipError(refused.reason, "the store does not let it be written.", where=place, hint=refused.hint)
    return MedclipError(
        Reason.WRITE_ERROR,
        f"the store does not take it ({type(error).__name__}).",
        where=place,
        hint="Check the URL and what the store allows; the same command goes on.",
    )
