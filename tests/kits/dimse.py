"""Receivers on loopback, and senders of DIMSE: pynetdicom's, DCMTK's where it is installed."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.files.dimse.address import Entity
from medclip.files.dimse.commitments import Commitments
from medclip.files.dimse.received import Received
from medclip.files.dimse.receiver import Receiver
from medclip.settings import Settings
from tests.kits.pacs import free_port

REFUSED_CONNECTION = "ignore::pytest.PytestUnraisableExceptionWarning"
"""pynetdicom 3.0 leaves the socket of a connection that was refused or cut to the garbage collector."""
KEY = bytes(range(32))
STORESCU = shutil.which("storescu")
INSTALL = "DCMTK is missing. Run: apt-get install dcmtk"
TITLE = "MEDCLIP"


def wait_for(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds; fail after some seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Listening:
    """A receiver that listens."""

    entity: Entity
    received: Received
    safe: set[str] = field(default_factory=set)
    """Instances whose rows are done."""

    @property
    def news(self) -> Counter[str]:
        """What should be logged."""
        return self.received.news

    def files(self) -> list[str]:
        """Names of all files."""
        return [name for _, files in self.received.files() for name in files]

    def left(self) -> list[str]:
        """Names of all that lies there, drafts too."""
        return sorted(path.name for path in self.received.studies.rglob("*") if path.is_file())


@contextmanager
def listening(
    folder: Path,
    senders: dict[str, Entity | None] | None = None,
    settings: Settings | None = None,
    port: int = 0,
    host: str = "127.0.0.1",
) -> Iterator[Listening]:
    """Receive into a folder."""
    entity = Entity(TITLE, host, port or free_port())
    received = Received(folder / "received", KEY, settings or Settings())
    received.begin()
    here = Listening(entity, received)
    commitments = Commitments(
        received.folder,
        TITLE,
        senders or {},
        lambda uids: dict.fromkeys(here.safe & set(asked := list(uids)), "") | received.on_disk(asked),
        received.news,
    )
    with Receiver(entity, received, senders or {}, commitments):
        yield here


def associate(entity: Entity, contexts: Sequence[Any], title: str = "SCANNER", **options: Any) -> Any:
    """Return an association of pynetdicom for SOP classes, or pairs of class and transfer syntaxes."""
    from pynetdicom import AE

    ae = AE(ae_title=title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for context in contexts:
        ae.add_requested_context(*((context,) if isinstance(context, str) else context))
    return ae.associate(entity.host, entity.port, ae_title=options.pop("called", entity.title), **options)


def send(entity: Entity, files: Sequence[Path], title: str = "SCANNER") -> list[int | None]:
    """Send files on one association; return the status of each."""
    import pydicom

    objects = [pydicom.dcmread(file) for file in files]
    contexts = {(str(each.SOPClassUID), each.file_meta.TransferSyntaxUID) for each in objects}
    association = associate(entity, [(sop_class, [syntax]) for sop_class, syntax in sorted(contexts)], title)
    assert association.is_established
    try:
        return [getattr(association.send_c_store(each), "Status", None) for each in objects]
    finally:
        association.release()


def storescu(entity: Entity, *arguments: str | Path, called: str = "") -> subprocess.CompletedProcess[str]:
    """Run DCMTK's storescu."""
    command = [str(STORESCU), "-aec", called or entity.title, entity.host, str(entity.port), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


class HalfSender:
    """A sender that negotiates one class, begins to send an object and does not end. Use as a context manager."""

    def __init__(self, entity: Entity, file: Path) -> None:
        import pydicom

        dataset = pydicom.dcmread(file)
        self.association = associate(entity, [(dataset.SOPClassUID, [dataset.file_meta.TransferSyntaxUID])])
        assert self.association.is_established
        self._dataset = dataset
        self.socket: socket.socket = self.association.dul.socket.socket

    def __enter__(self) -> HalfSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.association.abort()

    def begin(self, num_bytes: int) -> None:
        """Send the command and so many bytes of the object, all in whole PDUs."""
        from pynetdicom.dimse_messages import C_STORE_RQ
        from pynetdicom.dimse_primitives import C_STORE
        from pynetdicom.dsutils import encode

        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = self._dataset.SOPClassUID
        request.AffectedSOPInstanceUID = self._dataset.SOPInstanceUID
        request.DataSet = __import__("io").BytesIO(b"\0\0")
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        command = next(message.encode_msg(1, 16382)).presentation_data_value_list[0][1]
        self.send_value(command)
        self._content = encode(self._dataset, False, True) or b""
        self.send_value(b"\x00" + self._content[:num_bytes])

    def send_value(self, value: bytes) -> None:
        """Send one P-DATA-TF PDU (PS3.8, 9.3.5)."""
        item = struct.pack(">LB", len(value) + 1, 1) + value
        self.socket.sendall(struct.pack(">BBL", 4, 0, len(item)) + item)


@dataclass
class Archive:
    """An entity that keeps what it is sent, and what storage commitment it is told of."""

    entity: Entity
    statuses: list[int] = field(default_factory=list)
    """Of the next objects; then they are kept."""
    kept: list[Any] = field(default_factory=list)
    reports: list[tuple[int, Any]] = field(default_factory=list)
    """Event and content."""
    callers: set[str] = field(default_factory=set)


@contextmanager
def archive(classes: Sequence[str], port: int = 0, allowed: Sequence[str] = ()) -> Iterator[Archive]:
    """Start an entity that takes objects of some classes."""
    from pynetdicom import AE, evt

    here = Archive(Entity("ARCHIVE", "127.0.0.1", port or free_port()))
    ae = AE(ae_title="ARCHIVE")
    ae.require_called_aet = True
    ae.require_calling_aet = list(allowed)
    for sop_class in ("1.2.840.10008.1.1", *classes):
        ae.add_supported_context(sop_class)
    ae.add_supported_context("1.2.840.10008.1.20.1", scu_role=True, scp_role=True)

    def store(event: Any) -> int:
        here.callers.add(event.assoc.requestor.ae_title)
        if here.statuses:
            return here.statuses.pop(0)
        here.kept.append(event.dataset)
        return 0

    def report(event: Any) -> tuple[int, None]:
        here.reports.append((event.request.EventTypeID, event.event_information))
        return 0, None

    handlers: list[Any] = [(evt.EVT_C_STORE, store), (evt.EVT_N_EVENT_REPORT, report)]
    server = ae.start_server(("127.0.0.1", here.entity.port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield here
    finally:
        server.shutdown()
