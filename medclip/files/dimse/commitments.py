"""Storage commitment (PS3.4, J): a sender asks whether its objects are safe, and is told of each.

A request is written down before it is answered, and its result sent afterwards (N-EVENT-REPORT): to the address that
is named for the sender, on an association of our own, tried again with longer waits for a day and over restarts; or,
where none is named, on the sender's association while it lasts.

An object is committed that lies on the disk, where its class is looked at, or whose rows are done. medclip is no
archive: it removes images that it has scored. Whoever deletes images on a scanner must have the commitment of the
archive.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from medclip.errors import MedclipError
from medclip.files.dimse.address import Entity
from medclip.files.output import disk_errors, make_folder, read_note, remove_drafts, write_file

COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The one instance of it (PS3.4, J.3.5)."""
_REQUEST, _ALL, _SOME = 1, 1, 2
"""Action of a request; events of a result: all are committed, or some are not."""
_NONE, _OTHER_CLASS = 0x0112, 0x0119
"""Why an object is not committed: there is none, or it is of another class (PS3.3, C.14.1.1)."""
_MISSING, _UNKNOWN_ACTION, _FAILED = 0x0114, 0x0123, 0x0110
_FIRST_S, _LONGEST_S, _GIVEN_UP_S = 10.0, 600.0, 86_400.0
_AFTER_ANSWER_S = 0.2
"""The answer to the request goes out before the result does."""
_MOST_OBJECTS = 100_000
_FOLDER = "commitments"


@dataclass
class _Request:
    """A request that has no result yet."""

    path: Path
    title: str
    transaction: str
    objects: list[tuple[str, str]]
    """SOP class and instance of each."""
    since: float
    association: Any = None
    """Of the sender, while it lasts."""
    pause_s: float = field(default_factory=lambda: _FIRST_S)
    due: float = 0.0


class Commitments:
    """Requests and their results. Use as a context manager: a thread of its own sends results meanwhile.

    Args:
        folder: Folder that requests are written down in, one below it.
        title: Own AE title.
        senders: Addresses that results go to, by AE title.
        safe: Function from instances to the SOP classes of those that are safe; "" for a class that is not known.
        news: Sentences for the log.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        senders: Mapping[str, Entity | None],
        safe: Callable[[Iterable[str]], Mapping[str, str]],
        news: Counter[str],
    ) -> None:
        self._folder, self._title, self._senders, self._safe, self._news = folder / _FOLDER, title, senders, safe, news
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()
        self._stops = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take up what an earlier call left."""
        with disk_errors(self._folder):
            make_folder(self._folder)
            remove_drafts(self._folder)
        for path in sorted(self._folder.glob("*.json")):
            note = read_note(path) or {}
            with suppress(KeyError, TypeError, ValueError):
                objects = [(str(sop_class), str(uid)) for sop_class, uid in note["objects"]]
                self._waiting.append(
                    _Request(path, str(note["title"]), str(note["transaction"]), objects, float(note["since"]))
                )
        self._thread = threading.Thread(target=self._work, name="medclip-commitments", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; what is not sent is sent by a later call."""
        with self._changed:
            self._stops = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(10)

    def ask(self, event: Any) -> tuple[int, None]:
        """Answer a request (N-ACTION): it is written down, or refused."""
        if event.request.ActionTypeID != _REQUEST:
            return _UNKNOWN_ACTION, None
        try:
            asked = event.action_information
            transaction = str(asked.TransactionUID)
            objects = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence
            ]
        except Exception:  # pydicom raises many types
            return _MISSING, None
        if not objects or len(objects) > _MOST_OBJECTS:
            return _MISSING, None
        title, since = str(event.assoc.requestor.ae_title).strip(), time.time()
        path = self._folder / f"{secrets.token_hex(8)}.json"
        note = {"title": title, "transaction": transaction, "objects": objects, "since": since}
        try:
            write_file(path, json.dumps(note), private=True)
        except MedclipError:
            return _FAILED, None
        event.assoc.medclip_request = _Request(path, title, transaction, objects, since, event.assoc)
        return 0x0000, None

    def answered(self, event: Any) -> None:
        """Begin with the result of a request, once its answer goes out."""
        request = getattr(event.assoc, "medclip_request", None)
        if request is None or type(event.message).__name__ != "N_ACTION_RSP":
            return
        event.assoc.medclip_request = None
        request.due = time.monotonic() + _AFTER_ANSWER_S
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                due = self._due()
                while not self._stops and not due:
                    ends = [request.due for request in self._waiting]
                    self._changed.wait(max(min(ends) - time.monotonic(), 0.01) if ends else None)
                    due = self._due()
                if self._stops:
                    return
            for request in due:
                if self._try(request):
                    with self._changed:
                        self._waiting.remove(request)

    def _due(self) -> list[_Request]:
        return [request for request in self._waiting if request.due <= time.monotonic()]

    def _try(self, request: _Request) -> bool:
        """Send a result; return whether the request is done with."""
        entity = self._senders.get(request.title)
        try:
            event, content = self._result(request)
            is_sent = self._call(entity, event, content) if entity is not None else _send(request, event, content)
        except Exception:  # a network's, a parser's or a ledger's
            is_sent = False
        if is_sent or entity is None or time.time() - request.since > _GIVEN_UP_S:
            if not is_sent:
                self._news[
                    "Results of storage commitment could not be delivered: name the sender's address, --allow-ae "
                    "AET@HOST:PORT."
                    if entity is None
                    else "Results of storage commitment could not be delivered for a day, and are given up."
                ] += 1
            request.path.unlink(missing_ok=True)
            return True
        request.due = time.monotonic() + request.pause_s
        request.pause_s = min(2 * request.pause_s, _LONGEST_S)
        return False

    def _result(self, request: _Request) -> tuple[int, Any]:
        """Return event and content of a result."""
        from pydicom import Dataset

        safe = self._safe(uid for _, uid in request.objects)
        committed, failed = [], []
        for sop_class, uid in request.objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
            if safe.get(uid) in ("", sop_class):
                committed.append(item)
            else:
                item.FailureReason = _OTHER_CLASS if uid in safe else _NONE
                failed.append(item)
        content = Dataset()
        content.TransactionUID = request.transaction
        if committed:
            content.ReferencedSOPSequence = committed
        if failed:
            content.FailedSOPSequence = failed
        return _SOME if failed else _ALL, content

    def _call(self, entity: Entity, event: int, content: Any) -> bool:
        """Send a result on an association of our own, in the role of the one who commits (PS3.4, J.3.3)."""
        from pynetdicom import AE, build_role

        ae = AE(ae_title=self._title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 30
        ae.add_requested_context(COMMITMENT)
        role = build_role(COMMITMENT, scp_role=True)
        association = ae.associate(entity.host, entity.port, ae_title=entity.title, ext_neg=[role])
        if not association.is_established:
            return False
        try:
            return _report(association, event, content)
        finally:
            association.release()


def _send(request: _Request, event: int, content: Any) -> bool:
    """Send a result on the sender's own association, if it is still there."""
    association = request.association
    return association is not None and association.is_established and _report(association, event, content)


def _report(association: Any, event: int, content: Any) -> bool:
    status, _ = association.send_n_event_report(content, event, COMMITMENT, _INSTANCE)
    return getattr(status, "Status", None) == 0x0000
