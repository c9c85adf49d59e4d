"""The server of `receiver`, with the limits that pynetdicom leaves open, which is imported as this is."""

from __future__ import annotations

import socket
import time
from typing import Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.fsm import StateMachine
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from medclip.files.dimse.received import Draft, Received

MOST_ASSOCIATIONS = 16
PDU_BYTES = 131_072
"""The largest PDU that senders are offered."""
_SLACK_BYTES = 1024
"""Some senders do not count the heads of a PDU's parts."""
SILENT_S = 60.0
"""Seconds after which a silent sender is dropped, and within which a PDU comes."""
LEAST_RATE = 10_000
"""Bytes a second that an object comes at least with, after a grace of `SILENT_S`: 0.1 Mbit/s."""
_REQUEST_BYTES = 1 << 20
"""Most bytes of a PDU that asks for an association, and of a message that is no object."""
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
"""Of Linux. DCMTK and pynetdicom send the head of a PDU by itself and wait: without it 40 ms for each object."""
_MOST_WAITING = 2
"""Messages of one association that wait: one operation at once is agreed to, and an answer may cross it."""


class BoundedSocket(AssociationSocket):
    """Reads PDUs that are as large as was agreed, and come in time."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes; fewer where the connection ends."""
        established = self.assoc.is_established
        if nr_bytes > (PDU_BYTES + _SLACK_BYTES if established else _REQUEST_BYTES):
            raise OSError("a PDU is larger than was agreed")
        connection: Any = self.socket
        data, at, end = bytearray(nr_bytes), 0, time.monotonic() + SILENT_S
        view = memoryview(data)
        if _QUICKACK is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)  # it lasts for a moment only
        try:
            while at < nr_bytes:
                connection.settimeout(max(end - time.monotonic(), 0.001))
                num = connection.recv_into(view[at:])
                if not num:
                    break
                at += num
        finally:
            view.release()
        connection.settimeout(SILENT_S)
        del data[at:]
        return data


class QuietMachine(StateMachine):
    """Ends the association at what cannot be in its state, such as an abort that crosses a release."""

    def do_action(self, event: str) -> None:
        """Do what an event asks for."""
        try:
            super().do_action(event)
        except Exception:  # pynetdicom raises many types, which would end its thread with a trace
            self.dul.kill_dul()
            provider: Any = self.dul.assoc.dimse
            provider.discard()


class Provider(DIMSEServiceProvider):
    """Has the fragments of an object written down as they come, and watches how they come."""

    def __init__(self, assoc: Any, received: Received) -> None:
        super().__init__(assoc)
        self.received = received
        self.drafts: set[Draft] = set()
        self._begun, self._num_bytes = 0.0, 0

    def receive_primitive(self, primitive: Any) -> None:
        """Take some fragments of a message."""
        if self.message is None:
            self._begun, self._num_bytes = time.monotonic(), 0
            if self.msg_queue.qsize() > _MOST_WAITING:
                self._abort("Associations were ended: more was sent before an answer.")
                return
        self._num_bytes += sum(len(data) for _, data in primitive.presentation_data_value_list)
        if time.monotonic() - self._begun > SILENT_S + self._num_bytes / LEAST_RATE:
            self._abort(f"Associations were ended: an object came with less than {LEAST_RATE:,} bytes a second.")
            return
        super().receive_primitive(primitive)
        message: Any = self.message
        if isinstance(message, C_STORE_RQ):
            if message._data_set_file is None:
                self._to_disk(message)
        elif message is not None and self._num_bytes > _REQUEST_BYTES:
            self._abort("Associations were ended: a request is larger than any that means something.")

    def _to_disk(self, message: Any) -> None:
        command = message.command_set
        context = self.assoc._accepted_cx.get(message.context_id)
        syntax = "" if context is None else str(context.transfer_syntax[0])
        draft = self.received.draft(
            str(command.get("AffectedSOPClassUID", "")), str(command.get("AffectedSOPInstanceUID", "")), syntax
        )
        self.drafts.add(draft)
        draft.write(message.data_set.getvalue())
        message.data_set.seek(0)
        message.data_set.truncate()
        message._data_set_file, message._data_set_path = draft, draft.path

    def _abort(self, sentence: str) -> None:
        self.received.news[sentence] += 1
        self.message = None
        self.dul.event_queue.put("Evt19")  # as for what is no message at all: the association is aborted
        self.discard()

    def end(self) -> None:
        """Take note that the association has ended."""
        message, self.message = self.message, None
        if isinstance(message, C_STORE_RQ):
            self.received.news["Associations ended in the middle of an object: nothing of it was kept."] += 1
        self.discard()

    def discard(self) -> None:
        """Remove all drafts of this association."""
        while self.drafts:
            self.drafts.pop().discard()


class Handler(RequestHandler):
    """Begins an association."""

    def _create_association(self) -> Any:
        self.request.settimeout(SILENT_S)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assoc = super()._create_association()
        server: Any = self.server
        assoc.dimse = Provider(assoc, server.received)
        connection: Any = assoc.dul.socket
        connection.__class__ = BoundedSocket  # a second one would announce the connection twice
        assoc.dul.state_machine.__class__ = QuietMachine
        assoc.daemon = assoc.dul.daemon = True
        return assoc


class BoundedServer(ThreadedAssociationServer):
    """Takes so many connections at once."""

    daemon_threads = True

    def __init__(self, *args: Any, received: Received, **kwargs: Any) -> None:
        self.received = received
        super().__init__(*args, request_handler=Handler, **kwargs)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is taken: also those count that ask for nothing yet."""
        return len(self.active_associations) < 2 * MOST_ASSOCIATIONS
