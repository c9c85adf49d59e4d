"""Places that are no local path: s3://, http(s):// and what else fsspec reads; ranges, sizes, lists, with retries.

A URL that holds a user, a password or a query is refused, so that none can reach a log, an error, a recipe or a card:
credentials come from where the client of the store looks for them (AWS_ACCESS_KEY_ID or ~/.aws for S3, ~/.netrc for
HTTP). Errors name the place and the kind of fault and never quote the client, whose messages may quote headers.

Nothing of fsspec is imported before a URL is read.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors
from medclip.wording import count, duration

# Places that are no local path: s3://, http(s):// and what else fsspec reads; ranges, sizes, lists, with retries.
#
# A URL that holds a user, a password or a query is refused, so that none can reach a log, an error, a recipe or a
# card: credentials come from where the client of the store looks for them (AWS_ACCESS_KEY_ID or ~/.aws for S3,
# ~/.netrc for HTTP). Errors name the place and the kind of fault and never quote the client, whose messages may quote
# headers.
#
# Nothing of fsspec is imported before a URL is read.

T = TypeVar("T")
RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before each new attempt, up to a half more by chance, so that many nodes do not come back at once."""
_LONGEST_ASKED_S = 120.0
"""Longest pause that a server may ask for."""
CHUNK_BYTES = 32 << 20
"""What one request of a download asks for: few requests a shard, and this much memory."""
PIP_LINE = "pip install 'medclip-imaging[remote]'"
_chance = random.Random()
"""Of its own: the state of others' chance must not depend on the network."""
_CONNECT_S, _SILENT_S = 10.0, 60.0
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_FLATTENED = re.compile(r"(s3a?|https?|gcs?|gs|abfss?|az|memory|file):/(?!/)")
"""What `Path("s3://bucket")` makes of a URL."""
_CREDENTIALS = (
    "Credentials come from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws for S3 "
    "(AWS_ENDPOINT_URL for another store than Amazon's), ~/.netrc for HTTP."
)


@dataclass(frozen=True)
class RemotePath:
    """A file or folder that a URL names."""

    url: str
    """Without user, password, query and a slash at its end."""

    def __truediv__(self, name: str) -> RemotePath:
        """Return what lies in this folder, or beside it ("../x")."""
        scheme, _, rest = self.url.partition("://")
        host, _, path = rest.partition("/")
        joined = posixpath.normpath(posixpath.join("/", path, name)).lstrip("/")
        return RemotePath(f"{scheme}://{host}/{joined}".rstrip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        """Return the URL."""
        return self.url


Place = Path | RemotePath


def is_url(text: object) -> bool:
    """Whether a text is a URL.

    Example:
        >>> is_url("s3://bucket/shards"), is_url("shards")
        (True, False)
    """
    return isinstance(text, str) and _URL.match(text) is not None


def place_of(where: str | Path | RemotePath) -> Place:
    """Return the place that a path or a URL names; file:// is a path.

    Raises:
        MedclipError: WRONG_USE for a URL with a user, a password or a query in it.

    Example:
        >>> str(place_of("s3://bucket/shards/") / "index.json"), place_of("file:///data/x") == Path("/data/x")
        ('s3://bucket/shards/index.json', True)
    """
    if isinstance(where, RemotePath):
        return where
    text = str(where)
    if isinstance(where, Path):
        text = _FLATTENED.sub(r"\1://", text, count=1)
    if not is_url(text):
        return Path(where)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "@" in parts.netloc or parts.query or parts.fragment:
        host = parts.netloc.rpartition("@")[2]
        raise MedclipError(
            Reason.WRONG_USE,
            "the URL holds a user, a password, a query or a fragment, which would be written down with it.",
            where=f"{parts.scheme}://{host}{parts.path}",
            hint=f"Leave them out. {_CREDENTIALS}",
        )
    return RemotePath(text.rstrip("/"))


def read_range(place: RemotePath, start: int, size: int) -> bytes:
    """Read a part of a file with one request.

    Raises:
        MedclipError: MISSING_FILE, PERMISSION_DENIED, MISSING_CODEC (the extra), READ_ERROR after all attempts;
            CORRUPT where the file ends before.
    """

    def read() -> bytes:
        client = client_of(place)
        data: bytes = client.cat_file(place.url, start=start, end=start + size)
        if len(data) > size:  # a server that knows no ranges sends all
            data = data[start : start + size]
        if len(data) < size:
            num_bytes = client.info(place.url).get("size")
            if num_bytes is not None and num_bytes < start + size:
                raise _beyond_end(place)
            raise ShortError(f"{len(data):,} of {size:,} bytes")
        return data

    return patiently(place, read)


def read_whole(place: RemotePath) -> bytes:
    """Read a small file."""
    return patiently(place, lambda: client_of(place).cat_file(place.url))


def size_of(place: RemotePath) -> int:
    """Return the bytes of a file."""

    def ask() -> int:
        size = client_of(place).info(place.url).get("size")
        if size is None:
            raise ShortError("no size")
        return int(size)

    return patiently(place, ask)


def names_in(place: Place) -> list[str]:
    """List the names of what lies in a folder, sorted; nothing for one that is not there.

    Of HTTP it is what a page of links names.
    """
    if isinstance(place, Path):
        return sorted(os.listdir(place)) if os.path.isdir(place) else []
    try:
        entries = patiently(place, lambda: client_of(place).ls(place.url, detail=False, refresh=True))
    except MedclipError as e:
        if e.reason is not Reason.MISSING_FILE:
            raise
        return []
    return sorted({str(entry).rstrip("/").rpartition("/")[2] for entry in entries})


def entries_in(place: RemotePath, *, alone: bool = False) -> list[tuple[str | None, bool, int]]:
    """List what lies in a folder of a store.

    Args:
        place: A folder, or one object.
        alone: Whether this very object is asked for.

    Returns:
        Of each entry its name, whether it is a folder, and its bytes; an object that `place` itself is has no name.
        Empty where there is nothing.

    Raises:
        MedclipError: PERMISSION_DENIED, MISSING_CODEC (the extra), UNREACHABLE after all attempts.
    """

    def ask() -> list[tuple[str | None, bool, int]]:
        client = client_of(place)
        root = client._strip_protocol(place.url).rstrip("/")
        listed = [client.info(place.url)] if alone else client.ls(place.url, detail=True, refresh=True)
        entries: list[tuple[str | None, bool, int]] = []
        for entry in listed:
            path, is_folder = str(entry["name"]), entry["type"] == "directory"
            if path.rstrip("/") == root:
                if not is_folder and not path.endswith("/"):  # the mark of a folder, which some clients write
                    entries.append((None, False, int(entry.get("size") or 0)))
                continue
            entries.append((path.removeprefix(f"{root}/").rstrip("/"), is_folder, int(entry.get("size") or 0)))
        return entries

    try:
        entries = patiently(place, ask, gone=Reason.UNREACHABLE)
    except MedclipError as e:
        if e.reason is not Reason.MISSING_FILE:
            raise
        return []
    named = [entry for entry in entries if entry[0] is not None]
    return named or [entry for entry in entries if alone or entry[2]]


@contextmanager
def local_copy(place: Place) -> Iterator[BufferedIOBase]:
    """Open a file; one of a store as a temporary copy, which is read once, from front to back.

    Raises:
        OSError: It cannot be opened; FileNotFoundError also where a store does not have it.
        MedclipError: As `read_range`.
    """
    if isinstance(place, Path):
        with place.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        try:
            num_bytes = size_of(place)
        except MedclipError as e:
            if e.reason is Reason.MISSING_FILE:
                raise FileNotFoundError(str(place)) from None
            raise
        with disk_errors(Path(tempfile.gettempdir())):
            download(place, file, num_bytes)
        file.seek(0)
        yield cast("BufferedIOBase", file)


def download(place: RemotePath, file: IO[bytes], num_bytes: int) -> str:
    """Read a file from front to back in few large ranges; a range that fails is asked for again.

    Args:
        place: Place of the file that is read.
        file: Open file that is written, from its start.
        num_bytes: Number of bytes to read.

    Returns:
        Its sha256.
    """
    digest, at = hashlib.sha256(), 0
    file.seek(0)
    while at < num_bytes:
        data = read_range(place, at, min(CHUNK_BYTES, num_bytes - at))
        digest.update(data)
        file.write(data)
        at += len(data)
    file.flush()
    return digest.hexdigest()


class ShortError(OSError):
    """Less came than was asked for; its text says what."""


def patiently(
    place: RemotePath,
    action: Callable[[], T],
    *,
    final: Callable[[Exception, RemotePath], MedclipError | None] | None = None,
    pauses_s: Sequence[float] | None = None,
    gone: Reason = Reason.READ_ERROR,
    stop: threading.Event | None = None,
    done: str = "read",
) -> T:
    """Do what a network may refuse for a while.

    Args:
        place: Place that is named where it fails.
        action: Function that is called again while it fails.
        final: Function that returns the refusal for an error that no new attempt mends; fsspec's where None.
        pauses_s: Seconds of the pause before each new attempt; `RETRY_PAUSES_S` where None.
        gone: Reason of the error after the last attempt.
        stop: Event that ends all waiting: what fails then is not tried again.
        done: Participle of what the action does, for the sentence: "it could not be read".

    Raises:
        MedclipError: As `final`, and `gone`; UNREACHABLE once `stop` is set.
    """
    pauses_s = RETRY_PAUSES_S if pauses_s is None else pauses_s
    start, kind, asked_s = time.monotonic(), "", 0.0
    for pause in (*pauses_s, None):
        try:
            return action()
        except MedclipError:
            raise
        except Exception as e:  # each store has errors of its own
            if stop is not None and stop.is_set():
                raise MedclipError(
                    Reason.UNREACHABLE, "nothing is asked any more: the run stops.", where=place
                ) from None
            refusal = (final or refusal_of)(e, place)
            if refusal is not None:
                raise refusal from None
            kind = str(e) if isinstance(e, ShortError) else type(e).__name__
            asked_s = _asked_pause_s(e)
        if pause is not None:
            (time.sleep if stop is None else stop.wait)(max(pause, asked_s) * (1 + _chance.random() / 2))
    tried = f"{count(len(pauses_s) + 1, 'attempt')} over {duration(time.monotonic() - start)}"
    raise MedclipError(
        gone,
        f"it could not be {done} in {tried} ({kind}).",
        where=place,
        hint="Is the network or the store gone? Run the same command again to go on.",
    )


def _asked_pause_s(error: Exception) -> float:
    """Return the seconds that a busy server asks for (Retry-After, RFC 9110, 10.2.3), up to a bound; 0 for none."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    text = str(headers.get("Retry-After") or "").strip()
    if text.isdigit():
        return min(float(text), _LONGEST_ASKED_S)
    try:
        until = parsedate_to_datetime(text).replace(tzinfo=UTC)  # HTTP's dates are in GMT
    except ValueError:
        return 0.0
    return min(max(0.0, (until - datetime.now(UTC)).total_seconds()), _LONGEST_ASKED_S)


_DENIED = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"})


def refusal_of(error: Exception, place: RemotePath) -> MedclipError | None:
    """Return the refusal for a fault that no new attempt mends."""
    status = _status(error)
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not _is_of_a_client(error.__cause__)):
        return MedclipError(Reason.MISSING_FILE, "there is no such file or folder.", where=place, hint="Check the URL.")
    if isinstance(error, PermissionError) or status in (401, 403) or type(error).__name__ in _DENIED:
        sentence = "the store does not let it be read."
        return MedclipError(Reason.PERMISSION_DENIED, sentence, where=place, hint=_CREDENTIALS)
    if status == 416:
        return _beyond_end(place)
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        return MedclipError(Reason.READ_ERROR, f"the server refuses to send it (status {status}).", where=place)
    if isinstance(error, (NotImplementedError, TypeError, AttributeError)):
        return MedclipError(Reason.READ_ERROR, f"it cannot be read in ranges ({type(error).__name__}).", where=place)
    return None


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that a client's error stands for; None where there was no answer."""
    cause = error.__cause__ or error  # botocore's error, below what s3fs made of it
    response = getattr(cause, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    status = getattr(cause, "status", None)
    return status if isinstance(status, int) else None


def _is_of_a_client(error: BaseException | None) -> bool:
    """Whether an error is one of the network: fsspec says "not found" of a size that a server did not tell."""
    return error is not None and type(error).__module__.startswith(("aiohttp", "asyncio"))


def _beyond_end(place: RemotePath) -> MedclipError:
    return MedclipError(Reason.CORRUPT, "it ends before what should be in it.", where=place)


def client_of(place: RemotePath) -> Any:
    """Return fsspec's client of a store; one for each process and kind."""
    protocol = place.url.partition("://")[0].lower()
    try:
        import fsspec

        return fsspec.filesystem(protocol, **_client_options(protocol))
    except ImportError as e:
        raise MedclipError(
            Reason.MISSING_CODEC,
            f"reading {protocol}:// needs a package that is not installed.",
            where=place,
            hint=f"Run: {PIP_LINE}" if protocol in ("s3", "s3a", "http", "https") else f"What fsspec wants: {e}.",
        ) from None
    except ValueError:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{protocol}:// is no kind of store that can be read.",
            where=place,
            hint="Use s3://, https://, http:// or another one that fsspec knows.",
        ) from None


def _client_options(protocol: str) -> dict[str, Any]:
    """Return what makes a client give up on a silent server: the attempts are counted here."""
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": _CONNECT_S, "read_timeout": _SILENT_S, "retries": {"total_max_attempts": 1}}
        return {"config_kwargs": limits}
    if protocol in ("http", "https"):
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENT_S)
        return {"client_kwargs": {"trust_env": True, "timeout": limit}}  # proxies and ~/.netrc
    return {}


# Objects written to a store: each appears whole, under its name, or not at all.
#
# One request writes an object (of large files one multipart upload, which shows nothing before its end), so that
# whoever reads sees what was there before or what is there now. A store has no rename, and needs none.


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
    """Remove an object; one that is not there is left so."""

    def remove() -> None:
        with suppress(FileNotFoundError):
            client_of(place).rm_file(place.url)

    patiently(place, remove, final=_refusal, gone=Reason.UNREACHABLE, done="removed")


def objects_below(place: RemotePath) -> dict[str, int]:
    """List all objects below a folder of a store: names relative to it, and bytes."""
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
