"""A FHIR server that bundles are posted to, each as one transaction whose resources are created where there are none.

What a server says of each resource of a bundle is kept apart, so that one of which it took a part is known. A bundle is
sent again as a whole: each of its resources is created only where none has its identifier, so that nothing is doubled
by an answer that was lost, or by a second call. A server that states that it cannot do that is refused.

Patients are named in what is sent: a server is asked by https, or lies on this machine. Errors name the server and
never what it answers, which may quote what it was sent.

Standard: FHIR R4 and R5, 3.2.0.11 (transaction), 3.2.0.7.1 (conditional create).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import TIMEOUT_S, WebService, is_this_machine, refusal, session_of
from medclip.files.stores import RemotePath, ShortError, patiently

FHIR = WebService(
    "FHIR",
    "MEDCLIP_FHIR",
    "Is the path of the URL that of FHIR, such as /fhir?",
    "Put a server that speaks https before one that does not.",
)
_JSON = "application/fhir+json"
_TRANSIENT = (408, 425, 429)
"""Statuses below 500 after which a request is sent again."""


def is_fhir(place: object) -> bool:
    """Whether a text names a FHIR server.

    Example:
        >>> is_fhir("https://server/fhir"), is_fhir("results")
        (True, False)
    """
    return str(place).startswith(("https://", "http://"))


def address_of(text: str) -> RemotePath:
    """Return the base URL of a server.

    Raises:
        MedclipError: WRONG_USE for a URL with a user, a password, a query or a fragment in it, for one without a host,
            and for http to another machine.
    """
    parts = urlsplit(text)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise MedclipError(
            Reason.WRONG_USE,
            "the URL holds a user, a password, a query or a fragment, which would be written down with it.",
            where=shown,
            hint=f"Leave them out. {FHIR.credentials}",
        )
    if not parts.hostname:
        raise MedclipError(Reason.WRONG_USE, "a FHIR server is named as https://HOST/PATH.", where=shown)
    if parts.scheme == "http" and not is_this_machine(parts.hostname):
        raise MedclipError(
            Reason.WRONG_USE,
            "results that name patients would go to another machine without encryption.",
            where=shown,
            hint="Name the server by https://.",
        )
    return RemotePath(text.rstrip("/"))


@dataclass(frozen=True)
class Outcome:
    """What a server made of the resources of a bundle."""

    statuses: Mapping[str, str]
    """By kind and place in the bundle, such as "Observation 3", the status of HTTP."""

    @property
    def refused(self) -> dict[str, str]:
        """Those that it does not have."""
        return {name: status for name, status in self.statuses.items() if not status.startswith("2")}


@dataclass
class FhirServer:
    """A server.

    Args:
        place: Base URL of the server.
        version: Version of FHIR that the bundles are of, or what it begins with: "4" or "5".
    """

    place: RemotePath
    version: str
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    """Ends all waiting; what is asked then fails."""
    _session: Any = field(default=None, repr=False)

    def check(self, pauses_s: Sequence[float] | None = None) -> None:
        """Ask whether the server is there and speaks the version of the bundles.

        Args:
            pauses_s: Seconds of the pause before each new attempt; about two minutes in all where None.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED, READ_ERROR, MISSING_FILE, MISSING_CODEC; WRONG_USE for a
                server of another version, and for one that states that it creates resources twice.
        """
        stated = self._ask(partial(self._values, "GET", "/metadata"), pauses_s, "read")
        if stated.get("resourceType") != "CapabilityStatement":
            raise self._no_fhir("it has no capability statement")
        version = str(stated.get("fhirVersion") or "")
        if version and not version.startswith(self.version):
            raise MedclipError(
                Reason.WRONG_USE,
                f"this server speaks FHIR {version}, and the results are of FHIR {self.version}.",
                where=self.place,
                hint="Send fhir-r5 to a server of version 5, and fhir-r4b to one of version 4.",
            )
        resources = [one for rest in stated.get("rest") or () for one in rest.get("resource") or ()]
        if any(one.get("type") == "Observation" and one.get("conditionalCreate") is False for one in resources):
            raise MedclipError(
                Reason.WRONG_USE,
                "this server states that it knows no conditional creation: what is sent twice would be there twice.",
                where=self.place,
                hint="Write the bundles into a folder, and load them as the server's manual says.",
            )

    def store(self, content: bytes) -> Outcome:
        """Send a bundle.

        Raises:
            MedclipError: UNREACHABLE, PERMISSION_DENIED, READ_ERROR, MISSING_FILE.
        """
        kinds = [entry["resource"]["resourceType"] for entry in json.loads(content)["entry"]]
        names = [f"{kind} {number}" for number, kind in enumerate(kinds, 1)]

        def send() -> Outcome:
            response = self._request("POST", "", data=content, headers={"Content-Type": _JSON, "Accept": _JSON})
            status = response.status_code
            if 400 <= status < 500 and status not in (401, 403, 404, 410, *_TRANSIENT):
                return Outcome(dict.fromkeys(names, str(status)))  # all or nothing: this bundle is not wanted
            answer = self._read(response)
            entries = answer.get("entry") or []
            if answer.get("resourceType") != "Bundle":
                raise self._no_fhir("the answer is no bundle")
            if len(entries) != len(names):
                raise ShortError(f"it answers of {len(entries)} of {len(names)} resources")
            statuses = (str((entry.get("response") or {}).get("status") or "none")[:3] for entry in entries)
            return Outcome(dict(zip(names, statuses, strict=True)))

        return self._ask(send, None, "stored")

    def close(self) -> None:
        """Ask nothing more, and close the connection."""
        self.stop.set()
        if self._session is not None:
            self._session.close()

    def _ask(self, action: Any, pauses_s: Sequence[float] | None, done: str) -> Any:
        return patiently(
            self.place,
            action,
            final=partial(refusal, service=FHIR),
            gone=Reason.UNREACHABLE,
            pauses_s=pauses_s,
            stop=self.stop,
            done=done,
        )

    def _values(self, method: str, path: str) -> dict[str, Any]:
        return self._read(self._request(method, path, headers={"Accept": _JSON}))

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        if self._session is None:
            self._session = session_of(FHIR)
        url = f"{self.place.url}{path}"
        response = self._session.request(method, url, timeout=TIMEOUT_S, allow_redirects=False, **arguments)
        if response.is_redirect or 300 <= response.status_code < 400:
            raise MedclipError(
                Reason.READ_ERROR,
                "the server leads elsewhere, and nothing that names patients follows it.",
                where=self.place,
                hint="Name the URL that it leads to.",
            )
        return response

    def _read(self, response: Any) -> dict[str, Any]:
        """Return the JSON values of an answer; one that is cut off is asked for again."""
        response.raise_for_status()
        try:
            answer = json.loads(response.content)
        except ValueError:
            if "json" in response.headers.get("Content-Type", ""):
                raise ShortError("its answer is cut off") from None
            raise self._no_fhir("the answer is no JSON") from None
        if not isinstance(answer, dict):
            raise self._no_fhir("the answer is no resource")
        return answer

    def _no_fhir(self, why: str) -> MedclipError:
        return MedclipError(Reason.READ_ERROR, f"this is no FHIR server: {why}.", where=self.place, hint=FHIR.path_hint)
