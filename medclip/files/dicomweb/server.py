"""Requests to a server of DICOMweb, by dicomweb-client: asked again where the server is away or busy.

Errors name the server and never a study: UIDs are identifiers, and messages of clients quote them. Nothing of
dicomweb-client is imported before a server is asked.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard, TypeVar
from urllib.parse import urlsplit

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.stores import RemotePath, patiently, place_of

# How a server and a selection of its studies are written: dicomweb://HOST[:PORT]/PATH, and KEY=VALUE,KEY=VALUE.

_ADDRESS = re.compile(r"dicomweb(s?):/{1,2}(?!/)")
"""One slash is what `Path("dicomweb://host")` makes of two."""
_NEXT = re.compile(r",(?=\s*[A-Za-z0-9]+=)")
"""A comma in front of a key; others belong to a value."""
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_PARAMETERS = {"limit", "offset", "includefield", "fuzzymatching"}
_USUAL = "StudyDate=20240101-20240131,ModalitiesInStudy=CR"


@dataclass(frozen=True)
class WebService:
    """How a kind of server is named in refusals, and what its credentials are called in the environment."""

    name: str
    variable: str
    """What the names of its variables begin with."""
    path_hint: str
    plain_hint: str
    """What to do where it speaks no https."""

    @property
    def credentials(self) -> str:
        """Where its credentials come from, in words."""
        return (
            f"Credentials come from {self.variable}_USER and {self.variable}_PASSWORD, from {self.variable}_TOKEN (a "
            "bearer token), or from ~/.netrc."
        )


_DICOMWEB = WebService(
    "DICOMweb",
    "MEDCLIP_DICOMWEB",
    "Is the path of the URL that of DICOMweb, such as /dicom-web?",
    "Name a server that speaks http alone as dicomweb://; dicomwebs:// asks for https.",
)
CREDENTIALS = _DICOMWEB.credentials


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


T = TypeVar("T")
PIP_LINE = "pip install 'medclip-imaging[web]'"
PAGE = 500
"""Answers that one request asks for."""
FEW_PAUSES_S = (0.5, 1.0, 2.0)
"""For one study: a server that lacks one object says so by status 500, too."""
TIMEOUT_S = (10.0, 60.0)
"""Until a server has answered a call for a connection, and until it says something more."""
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
        return parts.scheme == "http" and not is_this_machine(parts.hostname or "")

    def studies(self, query: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
        """Yield UID and number of objects of each study that matches; None where the server does not say.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED, READ_ERROR, MISSING_FILE, MISSING_CODEC.
        """
        for study in self._studies(query, [_NUM_INSTANCES]):
            yield _value(study, _STUDY), _num_instances(study)

    def studies_with_modalities(self, query: Mapping[str, str]) -> Iterator[tuple[str, int | None, tuple[str, ...]]]:
        """Yield UID, number of objects and DICOM modalities of each study that matches."""
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
        """Fetch one file as it is stored."""
        path = f"studies/{study_uid}/series/{instance.series}/instances/{instance.uid}"
        return self._ask_for_one(lambda: next(iter(self._client().iter_files(f"{self.place.url}/{path}"))))

    def headers(self, study_uid: str) -> list[dict[str, Any]]:
        """Fetch the headers of a study in DICOM's JSON form."""
        return self._ask_for_one(lambda: self._client().retrieve_study_metadata(study_uid))

    def store(self, content: bytes) -> bool:
        """Send one file; return whether the server keeps it."""
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
        """
        patiently(
            self.place,
            lambda: self._client().search_for_studies(limit=1),
            final=partial(refusal, service=_DICOMWEB),
            gone=Reason.UNREACHABLE,
            pauses_s=pauses_s,
            stop=self.stop,
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
        return patiently(
            self.place, action, final=partial(refusal, service=_DICOMWEB), gone=Reason.UNREACHABLE, stop=self.stop
        )

    def _ask_for_one(self, action: Callable[[], T]) -> T:
        """Ask for one study; find out whether it is the study or the server that is away."""
        try:
            return patiently(
                self.place, action, final=partial(refusal, service=_DICOMWEB), pauses_s=FEW_PAUSES_S, stop=self.stop
            )
        except MedclipError as error:
            if error.reason in (Reason.READ_ERROR, Reason.MISSING_FILE):
                self.check()
            raise

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

    session = session_of(_DICOMWEB)
    client = Client(place.url, session=session, permissive_uid=True, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # attempts are counted here
    return client, session


def session_of(service: WebService) -> Any:
    """Return a session of requests with the credentials of the environment.

    Raises:
        MedclipError: MISSING_CODEC without requests; WRONG_USE for a token that no request can carry.
    """
    try:
        from requests import Session
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC,
            f"asking a server of {service.name} needs a package that is not installed.",
            hint=f"Run: {PIP_LINE}",
        ) from None
    session = Session()
    user, password, token = (os.environ.get(f"{service.variable}_{name}") for name in ("USER", "PASSWORD", "TOKEN"))
    if token:
        session.auth = _Bearer(_check_token(token, f"{service.variable}_TOKEN"))
    elif user:
        session.auth = (user, password or "")
    return session


def _check_token(token: str, variable: str) -> str:
    """Return a token without the line break that a file ends with; refuse what no header can carry."""
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{variable} is no token: it has a line break or a character that is not ASCII.",
            hint="Copy it once more, or make a new one.",
        )
    return token


@dataclass(frozen=True)
class _Bearer:
    """A token as `requests` takes it: it goes to this server and not to one that a redirect names."""

    token: str = field(repr=False)

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def refusal(error: Exception, place: RemotePath, service: WebService) -> MedclipError | None:
    """Return the refusal for a fault that no new attempt mends."""
    from requests.exceptions import HTTPError, InvalidURL, RequestException, SSLError

    if isinstance(error, SSLError):
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            return MedclipError(
                Reason.READ_ERROR,
                "no encrypted connection came about.",
                where=place,
                hint=service.plain_hint,
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
                Reason.PERMISSION_DENIED,
                f"the server refuses (status {status}).",
                where=place,
                hint=service.credentials,
            )
        if status in (404, 410):
            return MedclipError(Reason.MISSING_FILE, "the server has nothing here.", where=place, hint="Check the URL.")
        if 400 <= status < 500 and status not in (408, 425, 429):
            return MedclipError(
                Reason.READ_ERROR,
                f"the server refuses the request (status {status}).",
                where=place,
                hint=service.path_hint,
            )
        return None
    if isinstance(error, InvalidURL):
        return MedclipError(Reason.WRONG_USE, "this is no URL that can be asked.", where=place, hint="Check it.")
    if isinstance(error, (ConnectionError, RequestException, OSError)) and "JSON" not in type(error).__name__:
        return None
    return MedclipError(
        Reason.READ_ERROR,
        f"the answer is not one of {service.name} ({type(error).__name__}).",
        where=place,
        hint=service.path_hint,
    )


def _value(item: Mapping[str, Any], tag: str) -> Any:
    """Return the first value of an attribute in DICOM's JSON form; "" where there is none, or an empty one (null)."""
    values: Sequence[Any] = item.get(tag, {}).get("Value") or [""]
    return "" if values[0] is None else values[0]


def _num_instances(study: Mapping[str, Any]) -> int | None:
    number = _value(study, _NUM_INSTANCES)
    return int(number) if str(number).isdigit() else None


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine by its loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
