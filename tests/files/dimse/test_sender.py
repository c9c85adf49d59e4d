"""Results that go to an entity by C-STORE: kept, refused, or tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.files.dimse.address import TITLE_VARIABLE
from medclip.files.dimse.sender import DimseSender
from tests.kits.dimse import REFUSED_CONNECTION, archive
from tests.kits.scoring import write_dicom

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings(REFUSED_CONNECTION),
]
DX = "1.2.840.10008.5.1.4.1.1.1.1"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.01, 0.01))


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A DICOM file."""
    return write_dicom(tmp_path / "1.dcm", 1).read_bytes()


def test_a_file_is_kept_a_busy_archive_is_asked_again_and_a_refusal_is_said(content: bytes) -> None:
    with archive([DX]) as there:
        sender = DimseSender(there.entity)
        sender.check(())
        assert sender.store(content)
        there.statuses = [0xA700, 0xA700]
        assert sender.store(content)
        there.statuses = [0xB000]
        assert sender.store(content)
        there.statuses = [0xC000, 0x0122]
        assert [sender.store(content), sender.store(content)] == [False, False]
        there.statuses = [0xA700] * 3
        with pytest.raises(MedclipError) as full:
            sender.store(content)
        assert full.value.reason is Reason.UNREACHABLE
        assert len(there.kept) == 2
        assert there.callers == {"MEDCLIP"}


def test_a_class_that_is_not_taken_is_refused_and_no_error(content: bytes) -> None:
    with archive(["1.2.840.10008.5.1.4.1.1.2"]) as there:
        assert not DimseSender(there.entity).store(content)


def test_an_archive_that_takes_implicit_values_alone_gets_them(content: bytes) -> None:
    from pynetdicom import AE, evt

    from medclip.files.dimse.address import Entity
    from tests.kits.pacs import free_port

    kept = []
    ae = AE(ae_title="OLD")
    ae.add_supported_context(DX, "1.2.840.10008.1.2")
    port = free_port()
    handlers: list[Any] = [(evt.EVT_C_STORE, lambda event: kept.append(event.dataset) or 0)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        assert DimseSender(Entity("OLD", "127.0.0.1", port)).store(content)
    finally:
        server.shutdown()
    assert kept[0].PatientID == "MRN-7731902"


def test_the_title_that_is_called_from_is_that_of_the_environment_and_may_be_refused(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with archive([DX], allowed=["NIGHT"]) as there:
        with pytest.raises(MedclipError) as refused:
            DimseSender(there.entity).check(())
        assert refused.value.reason is Reason.PERMISSION_DENIED
        assert TITLE_VARIABLE in refused.value.hint
        monkeypatch.setenv(TITLE_VARIABLE, "NIGHT")
        assert DimseSender(there.entity).store(content)
        assert there.callers == {"NIGHT"}


def test_an_archive_that_is_away_is_unreachable_and_one_that_comes_back_is_sent_to(content: bytes) -> None:
    with archive([DX]) as there:
        pass
    sender = DimseSender(there.entity)
    with pytest.raises(MedclipError) as away:
        sender.store(content)
    assert away.value.reason is Reason.UNREACHABLE
    assert str(there.entity) in str(away.value)
    assert "(no association came about)" in str(away.value)
    with archive([DX], there.entity.port):
        assert sender.store(content)
    sender.close()
    with pytest.raises(MedclipError):
        sender.store(content)
