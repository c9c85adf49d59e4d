"""Receive objects (C-STORE), answer C-ECHO and storage commitment: a server of DIMSE with limits, on pynetdicom.

pynetdicom negotiates and answers. What it leaves open is closed in `bounded_server`: a PDU is at most as large as was
agreed and comes within `SILENT_S`; an object comes at `LEAST_RATE` bytes a second at least; a request waits for the
answer of the one before; fragments go to the disk as they come, so that an object takes no memory; connections are
counted, also those that ask for nothing.

AE titles are no proof of who sends, as anybody may write one: a list of them keeps out mistakes, and a firewall the
rest. Nothing here is encrypted. No title, address or UID reaches the log.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from medclip.dicom.codecs.transfer_syntax import JPEG_XL, READ, VIDEO
from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.spool import NO_IMAGES
from medclip.files.dimse.address import Entity, protocol, unheard
from medclip.files.dimse.commitments import COMMITMENT, Commitments
from medclip.files.dimse.received import Draft, Received
from medclip.wording import count, list_of

_VERIFICATION = "1.2.840.10008.1.1"
_STEM = "1.2.840.10008.5.1.4.1.1."
_UNREAD = (
    "1.2.840.10008.5.1.4.34.",  # instructions of delivery
    *(f"{_STEM}{n}." for n in ("68", "78", "79", "80", "90", "91", "200", "201", "482", "501")),  # scans, measurements
    *(f"{_STEM}{n}" for n in ("131", "4.2", "77.1.5.3", "77.1.5.8")),  # displays, spectroscopy, relationships
    *(f"{_STEM}481.1{n}" for n in range(10)),  # radiotherapy of the second generation
    *(f"{_STEM}9.{n}." for n in (*range(2, 9), 100)),  # waveforms but ECGs
)
"""Storage classes beside `NO_IMAGES` of which nothing is read."""
_RETIRED = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.5")
"""Ultrasound and nuclear medicine of 1993: old archives have them, and they are read."""
_MOST_NOTED = 1000
"""A sender may propose private classes without end."""
NOT_STORED = 0x0122
"""Status: the SOP class is not supported (PS3.7, C.5.6)."""


def stored_classes() -> list[str]:
    """Return the SOP classes that are taken: storage classes with an image or a signal."""
    from pynetdicom import AllStoragePresentationContexts

    classes = (str(context.abstract_syntax) for context in AllStoragePresentationContexts)
    return [uid for uid in (*classes, *_RETIRED) if not uid.startswith((*NO_IMAGES, *_UNREAD))]


class Receiver:
    """The server. Use as a context manager: it listens meanwhile.

    Args:
        entity: Own title, and the address that is listened at.
        received: Folder that objects go to.
        senders: Titles that may send, with the address that results of storage commitment go to; empty: any may.
        commitments: Requests of storage commitment, which are answered meanwhile.
    """

    def __init__(
        self, entity: Entity, received: Received, senders: Mapping[str, Entity | None], commitments: Commitments
    ) -> None:
        self.entity = entity
        self._received, self._senders, self._commitments = received, senders, commitments
        self._classes: set[str] = set()
        self._stack = ExitStack()
        self._noted_classes: set[str] = set()

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            MedclipError: WRONG_USE for an address of another machine; BUSY for a port that is in use;
                PERMISSION_DENIED; MISSING_CODEC.
        """
        protocol()
        with ExitStack() as stack:
            stack.enter_context(unheard())
            stack.enter_context(self._commitments)
            server = self._server()
            threading.Thread(target=server.serve_forever, name="medclip-receiver", daemon=True).start()
            stack.callback(_end, server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more, and end all associations: what was not answered is sent again by its sender."""
        self._stack.close()

    def _server(self) -> Any:
        from pynetdicom import AE, evt

        from medclip.files.dimse.bounded_server import MOST_ASSOCIATIONS, PDU_BYTES, SILENT_S, BoundedServer

        ae = AE(ae_title=self.entity.title)
        ae.maximum_pdu_size, ae.maximum_associations = PDU_BYTES, MOST_ASSOCIATIONS
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = SILENT_S
        ae.require_called_aet = True
        ae.require_calling_aet = list(self._senders)
        classes = stored_classes()
        self._classes = set(classes)
        for sop_class in classes:
            ae.add_supported_context(sop_class, [*READ, *VIDEO, *JPEG_XL])
        for sop_class in (_VERIFICATION, COMMITMENT):
            ae.add_supported_context(sop_class)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commitments.ask),
            (evt.EVT_DIMSE_SENT, self._commitments.answered),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_CONN_CLOSE, _closed),
            (evt.EVT_ABORTED, _closed),
        ]
        host = self.entity.host or "127.0.0.1"
        try:
            address: Any = socket.getaddrinfo(host, self.entity.port, type=socket.SOCK_STREAM)[0][4]
            server = ae.make_server(
                address,
                evt_handlers=handlers,
                server_class=BoundedServer,
                received=self._received,
            )
        except OSError as error:
            raise _cannot_listen(error, self.entity) from error
        ae._servers.append(server)
        return server

    def _store(self, event: Any) -> int:
        request = event.request
        sop_class = str(request.AffectedSOPClassUID or "")
        provider: Any = event.assoc.dimse
        draft: Draft | None = request._dataset_file
        if sop_class not in self._classes or sop_class != str(event.context.abstract_syntax):
            self._note_classes([sop_class])
            return NOT_STORED  # pynetdicom closes and unlinks the draft
        if draft is None:
            draft = self._received.draft(
                sop_class, str(request.AffectedSOPInstanceUID or ""), str(event.context.transfer_syntax)
            )
            draft.write(request.DataSet.getvalue())
        status = self._received.keep(draft)
        provider.drafts.discard(draft)
        return status

    def _rejected(self, event: Any) -> None:
        from medclip.files.dimse.bounded_server import MOST_ASSOCIATIONS

        asked = event.assoc.requestor.primitive
        if asked is not None and self._senders and asked.calling_ae_title not in self._senders:
            sentence = "Associations were refused: their AE title is not among those that may send (--allow-ae)."
        elif asked is not None and asked.called_ae_title != self.entity.title:
            sentence = "Associations were refused: they call another AE title than the one that listens here."
        else:
            sentence = f"Associations were refused: {count(MOST_ASSOCIATIONS, 'association')} at once are the most."
        self._received.news[sentence] += 1

    def _accepted(self, event: Any) -> None:
        self._note_classes([str(context.abstract_syntax or "") for context in event.assoc.rejected_contexts])

    def _note_classes(self, proposed: Sequence[str]) -> None:
        """Note once of each class that its objects are not taken."""
        from pydicom.uid import UID

        new = set(proposed) - self._classes - self._noted_classes - {"", _VERIFICATION, COMMITMENT}
        if not new or len(self._noted_classes) > _MOST_NOTED:
            return
        self._noted_classes |= new
        names = {"a private class" if UID(uid).name == uid else UID(uid).name for uid in new}
        self._received.news[f"A sender proposed objects that are not taken: {list_of(sorted(names), most=3)}."] += 1


def _cannot_listen(error: OSError, entity: Entity) -> MedclipError:
    import errno

    if error.errno == errno.EADDRINUSE:
        return MedclipError(Reason.BUSY, "another program listens here.", where=str(entity), hint="Name another port.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return MedclipError(
            Reason.PERMISSION_DENIED,
            "this user may not listen here.",
            where=str(entity),
            hint="Name a port from 1024 on, such as 11112.",
        )
    return MedclipError(
        Reason.WRONG_USE,
        "this is no address of this machine.",
        where=str(entity),
        hint="Name the address of one of its interfaces, or 0.0.0.0 for all of them.",
    )


def _end(server: Any) -> None:
    server.ae.shutdown()
    for association in server.active_associations:
        association.join(5)


def _closed(event: Any) -> None:
    """Remove what came of an object whose association has ended."""
    event.assoc.dimse.end()
