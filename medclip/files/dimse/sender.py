"""Send results to an application entity (C-STORE), again where it is away or busy.

Errors name the entity that was named, and no study.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.files.dimse.address import TITLE_VARIABLE, Entity, own_title, protocol, unheard
from medclip.files.stores import RemotePath, ShortError, patiently

T = TypeVar("T")
_CONNECT_S, _SILENT_S = 10.0, 60.0
_VERIFICATION = "1.2.840.10008.1.1"
_BUSY = range(0xA700, 0xA800)
"""Out of resources: another time it may be taken (PS3.4, B.2.3)."""
_WARNINGS = range(0xB000, 0xC000)
"""It is kept, in another form than it was sent in."""


class _AwayError(ShortError):
    """No association came about, or it ended; its text says what."""


class DimseSender:
    """Sends to one entity. It is what `medclip.export.running_results` calls a server.

    Args:
        entity: Entity that results go to.

    Raises:
        MedclipError: MISSING_CODEC; WRONG_USE for an own title that is none.
    """

    def __init__(self, entity: Entity) -> None:
        self.entity, self.place = entity, RemotePath(str(entity))
        self.title = own_title()
        protocol()
        self._stop = threading.Event()

    def check(self, pauses_s: Sequence[float] | None = None) -> None:
        """Ask whether the entity answers (C-ECHO).

        Args:
            pauses_s: Seconds of the pause before each new attempt; about a minute in all where None.

        Raises:
            MedclipError: UNREACHABLE; PERMISSION_DENIED where it does not let this title in.
        """

        def echo(association: Any) -> None:
            if getattr(association.send_c_echo(), "Status", None) != 0x0000:
                raise _AwayError("C-ECHO was not answered")

        self._ask(lambda: self._associated([(_VERIFICATION, None)], echo), pauses_s)

    def store(self, content: bytes) -> bool:
        """Send one file; return whether the entity keeps it.

        Raises:
            MedclipError: As `check`.
        """
        import pydicom

        with quiet("pydicom"):
            dataset = pydicom.dcmread(io.BytesIO(content))
        syntax = dataset.file_meta.TransferSyntaxUID
        syntaxes = [syntax] if syntax.is_compressed else _plain_first(str(syntax))

        def send(association: Any) -> bool:
            with quiet("pydicom"):
                status = getattr(association.send_c_store(dataset), "Status", None)
            if status is None or status in _BUSY:
                raise _AwayError("it ended the association" if status is None else "it is out of resources")
            return status == 0x0000 or status in _WARNINGS

        return self._ask(lambda: self._associated([(str(dataset.SOPClassUID), syntaxes)], send), None)

    def close(self) -> None:
        """Send nothing more."""
        self._stop.set()

    def _ask(self, action: Callable[[], T], pauses_s: Sequence[float] | None) -> T:
        return patiently(
            self.place,
            action,
            final=lambda error, place: None,
            gone=Reason.UNREACHABLE,
            pauses_s=pauses_s,
            stop=self._stop,
            done="reached",
        )

    def _associated(self, contexts: Sequence[tuple[str, Sequence[str] | None]], use: Callable[[Any], Any]) -> Any:
        """Return what `use` makes of an association; False where the entity takes no such objects."""
        from pynetdicom import AE

        ae = AE(ae_title=self.title)
        ae.connection_timeout, ae.acse_timeout = _CONNECT_S, _SILENT_S
        ae.dimse_timeout = ae.network_timeout = _SILENT_S
        for sop_class, syntaxes in contexts:
            ae.add_requested_context(sop_class, None if syntaxes is None else list(syntaxes))
        with unheard():
            association = ae.associate(self.entity.host or "127.0.0.1", self.entity.port, ae_title=self.entity.title)
            if association.is_rejected:
                raise self._rejection(association)
            if not association.is_established:
                if association.rejected_contexts and not association.accepted_contexts:
                    return False  # a class that it does not take
                raise _AwayError("no association came about")
            try:
                return use(association)
            finally:
                association.release()

    def _rejection(self, association: Any) -> Exception:
        """Return the error of an association that was refused: for good, or for now (PS3.8, 9.3.4)."""
        answer = association.acceptor.primitive
        if getattr(answer, "result", None) != 1:
            return _AwayError("it refuses associations for now")
        return MedclipError(
            Reason.PERMISSION_DENIED,
            f"it does not take associations from {self.title}, or is called otherwise.",
            where=self.place,
            hint=f"Enter this machine there under that title, or name another one with {TITLE_VARIABLE}.",
        )


def _plain_first(syntax: str) -> list[str]:
    """Return the syntaxes without compression, the file's own first: pynetdicom writes a file in the one agreed on."""
    plain = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
    return [syntax, *(each for each in plain if each != syntax)]
