"""Requests to a server of DICOMweb, by dicomweb-client: asked again where the server is away or busy.

Errors name the server and never a study: UIDs are identifiers, and messages of clients quote them. Nothing of
dicomweb-client is imported before a server is asked.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.address import CREDENTIALS
from medclip.files.stores import RemotePath, patiently

T = TypeVar("T")
PIP_LINE = "pip install 'medclip-imaging[web]'"
PAGE = 500
"""Answers that one request asks for."""
FEW_PAUSES_S = (0.5, 1.0, 2.0)
"""For one study: a server that lacks one object says so by status 500, too."""
_PATH_HINT = "Is the path of the URL that of DICOMweb, such as /dicom-web?"
_CONNECT_S, _SILENT_S = 10.0, 60.0
_STUDY, _SERIES, _INSTANCE, _CLASS, _NUM_INSTANCES = "0020000D", "0020000E", "00080018", "00080016", "00201208"
_MANUFACTURER = "00080070"
_MODALITIES = "00080061"
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Without it a server may decode and store anew what it sends (PS3.18, 8.7.3.5.2)."""


@dataclass(frozen=True)
class Instance:
    """One object of a study, as a server lists it."""

    uid: str
    series: str
    sop_class: str
    manufacturer: str = ""
    """Of what made it; "" where the server does not say."""


@dataclass
class DicomwebServer:
    """A server.

    Args:
        place: Base URL of the server.
    """

    place: RemotePath
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    """Ends all waiting; what is asked then fails."""
    _sessions: list[Any] = field(default_factory=list, repr=False)
    _local: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether what is sent can be read by others on the way: no https, and not this machine."""
        parts = urlsplit(self.place.url)
        return parts.scheme == "http" and not _is_this_machine(parts.hostname or "")

    def studies(self, query: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
        """Yield UID and number of objects of each study that matches; None where the server does not say.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED, READ_ERROR, MISSING_FILE, MISSING_CODEC.
        """
        for study in self._studies(query, [_NUM_INSTANCES]):
            yield _value(study, _STUDY), _num_instances(study)

    def studies_with_modalities(self, query: Mapping[str, str]) -> Iterator[tuple[str, int | None, tuple[str, ...]]]:
        """Yield UID, number of objects and DICOM modalities of each study that matches.

        Raises:
            MedclipError: As `studies`.
        """
        for study in self._studies(query, [_NUM_INSTANCES, _MODALITIES]):
            values = study.get(_MODALITIES, {}).get("Value") or []
            yield _value(study, _STUDY), _num_instances(study), tuple(str(value) for value in values if value)

    def _studies(self, query: Mapping[str, str], fields: list[str]) -> Iterator[dict[str, Any]]:
        ask = {"fields": fields, "search_filters": dict(query)}
        return self._pages(lambda client, **page: client.search_for_studies(**ask, **page), _STUDY)

    def instances(self, study_uid: str, expected: int | None = None) -> list[Instance]:
        """List the objects of a study.

        Args:
            study_uid: UID of the study.
            expected: Number of the study's objects, where that is known.

        Raises:
            MedclipError: As `studies`.
        """
        ask = {"study_instance_uid": study_uid, "fields": [_CLASS, _MANUFACTURER]}
        items = self._pages(
            lambda client, **page: client.search_for_instances(**ask, **page), _INSTANCE, expected or None
        )
        listed = (
            Instance(*(str(_value(item, tag)) for tag in (_INSTANCE, _SERIES, _CLASS, _MANUFACTURER))) for item in items
        )
        return list({instance.uid: instance for instance in listed}.values())

    def read_study(self, study_uid: str, take: Callable[[bytes], None]) -> int:
        """Fetch the files of a study as they are stored; where the connection breaks, from the start again.

        Args:
            study_uid: UID of the study.
            take: Function called with the bytes of each file; with some of them again after a break.

        Returns:
            How many there are.

        Raises:
            MedclipError: As `studies`; READ_ERROR where the server is there and does not send this study.
        """

        def read() -> int:
            client = self._client()
            number = 0
            for part in client.iter_files(f"{self.place.url}/studies/{study_uid}"):
                take(part)
                number += 1
            return number

        return self._ask_for_one(read)

    def read_instance(self, study_uid: str, instance: Instance) -> bytes:
        """Fetch one file as it is stored.

        Raises:
            MedclipError: As `read_study`.
        """
        path = f"studies/{study_uid}/series/{instance.series}/instances/{instance.uid}"
        return self._ask_for_one(lambda: next(iter(self._client().iter_files(f"{self.place.url}/{path}"))))

    def headers(self, study_uid: str) -> list[dict[str, Any]]:
        """Fetch the headers of a study in DICOM's JSON form.

        Raises:
            MedclipError: As `read_study`.
        """
        return self._ask_for_one(lambda: self._client().retrieve_study_metadata(study_uid))

    def store(self, content: bytes) -> bool:
        """Send one file; return whether the server keeps it.

        Raises:
            MedclipError: As `studies`.
        """
        import io

        import pydicom

        def send() -> bool:
            answer = self._client().store_instances([pydicom.dcmread(io.BytesIO(content))])
            return not answer.get("FailedSOPSequence")

        try:
            return self._ask(send)
        except MedclipError as error:
            if error.reason is Reason.READ_ERROR:  # 409 and the like: this object is not wanted
                return False
            raise

    def check(self, pauses_s: Sequence[float] | None = None) -> None:
        """Ask whether the server is there.

        Args:
            pauses_s: Seconds of the pause before each new attempt; about a minute in all where None.

        Raises:
            MedclipError: As `studies`.
        """
        patiently(
            self.place,
            lambda: self._client().search_for_studies(limit=1),
            final=self._final,
            gone=Reason.UNREACHABLE,
            pauses_s=pauses_s,
            wait=self.stop.wait,
        )

    def _pages(
        self, ask: Callable[..., list[dict[str, Any]]], name: str, expected: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield all answers, whatever a server makes of limit and offset; some twice where it changes meanwhile."""
        first, offset = "", 0
        while expected is None or offset < expected:
            page = self._ask(lambda at=offset: ask(self._client(), limit=PAGE, offset=at) or [])
            if not page or _value(page[0], name) == first:  # the end, or a server that knows no offset
                return
            yield from (item for item in page if _value(item, name))
            first = _value(page[0], name)
            offset += len(page)

    def _ask(self, action: Callable[[], T]) -> T:
        return patiently(self.place, action, final=self._final, gone=Reason.UNREACHABLE, wait=self.stop.wait)

    def _ask_for_one(self, action: Callable[[], T]) -> T:
        """Ask for one study; find out whether it is the study or the server that is away."""
        try:
            return patiently(self.place, action, final=self._final, pauses_s=FEW_PAUSES_S, wait=self.stop.wait)
        except MedclipError as error:
            if error.reason in (Reason.READ_ERROR, Reason.MISSING_FILE):
                self.check()
            raise

    def _final(self, error: Exception, place: RemotePath) -> MedclipError | None:
        if self.stop.is_set():
            return MedclipError(Reason.UNREACHABLE, "nothing is asked any more: the run stops.", where=place)
        return _final(error, place)

    def close(self) -> None:
        """Ask nothing more, and close the connections of all threads."""
        self.stop.set()
        while self._sessions:
            self._sessions.pop().close()

    def _client(self) -> Any:
        """Return the client of this thread."""
        client = getattr(self._local, "client", None)
        if client is None:
            client, session = _make_client(self.place)
            self._local.client = client
            self._sessions.append(session)
        return client


def _make_client(place: RemotePath) -> tuple[Any, Any]:
    """Return a client, and the session with its connections."""
    try:
        from dicomweb_client.api import DICOMwebClient
        from requests import Session
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC, "asking a PACS needs a package that is not installed.", hint=f"Run: {PIP_LINE}"
        ) from None

    class Client(DICOMwebClient):
        """A client that returns files as they are: those that cannot be parsed have rows, too."""

        def iter_files(self, url: str) -> Iterator[bytes]:
            """Yield the parts of an answer."""
            response = self._http_get(url, headers={"Accept": _AS_STORED}, stream=True)
            with response:
                if not response.headers.get("Content-Type", "").lower().startswith("multipart/"):
                    yield response.content
                    return
                yield from self._decode_multipart_message(response, stream=True)

    session = Session()
    user, password, token = (os.environ.get(f"MEDCLIP_DICOMWEB_{name}") for name in ("USER", "PASSWORD", "TOKEN"))
    if token:
        session.auth = _Bearer(token)
    elif user:
        session.auth = (user, password or "")
    client = Client(place.url, session=session, permissive_uid=True, timeout=(_CONNECT_S, _SILENT_S))
    client.set_http_retry_params(retry=False)  # attempts are counted here
    return client, session


@dataclass(frozen=True)
class _Bearer:
    """A token as `requests` takes it: it goes to this server and not to one that a redirect names."""

    token: str = field(repr=False)

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _final(error: Exception, place: RemotePath) -> MedclipError | None:
    """Return the refusal for a fault that no new attempt mends."""
    from requests.exceptions import HTTPError, InvalidURL, RequestException, SSLError

    if isinstance(error, SSLError):
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            return MedclipError(
                Reason.READ_ERROR,
                "no encrypted connection came about.",
                where=place,
                hint="Name a server that speaks http alone as dicomweb://; dicomwebs:// asks for https.",
            )
        return MedclipError(
            Reason.READ_ERROR,
            "its certificate is not one that this machine trusts.",
            where=place,
            hint="Name the file of the hospital's certificates with REQUESTS_CA_BUNDLE.",
        )
    if isinstance(error, HTTPError):
        status = 0 if error.response is None else error.response.status_code
        if status in (401, 403):
            return MedclipError(
                Reason.PERMISSION_DENIED, f"the server refuses (status {status}).", where=place, hint=CREDENTIALS
            )
        if status in (404, 410):
            return MedclipError(Reason.MISSING_FILE, "the server has nothing here.", where=place, hint="Check the URL.")
        if 400 <= status < 500 and status not in (408, 425, 429):
            return MedclipError(
                Reason.READ_ERROR, f"the server refuses the request (status {status}).", where=place, hint=_PATH_HINT
            )
        return None
    if isinstance(error, InvalidURL):
        return MedclipError(Reason.WRONG_USE, "this is no URL that can be asked.", where=place, hint="Check it.")
    if isinstance(error, (ConnectionError, RequestException, OSError)) and "JSON" not in type(error).__name__:
        return None
    return MedclipError(
        Reason.READ_ERROR,
        f"the answer is not one of DICOMweb ({type(error).__name__}).",
        where=place,
        hint=_PATH_HINT,
    )


def _value(item: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of an attribute in DICOM's JSON form; "" where there is none, or an empty one (null)."""
    values: Sequence[Any] = item.get(tag, {}).get("Value") or [""]
    return "" if values[0] is None else values[0]


def _num_instances(study: Mapping[str, Any]) -> int | None:
    number = _value(study, _NUM_INSTANCES)
    return int(number) if str(number).isdigit() else None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
