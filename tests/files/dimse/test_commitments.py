"""Storage commitment: each object is answered for, on the sender's association or on one of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest

pytest.importorskip("pynetdicom")

from pydicom import Dataset

from medclip.files.dimse import commitments
from medclip.files.dimse.address import Entity
from medclip.files.dimse.commitments import COMMITMENT
from tests.kits.dimse import REFUSED_CONNECTION, archive, associate, listening, send, wait_for
from tests.kits.pacs import free_port
from tests.kits.scoring import STUDY_UID, write_dicom

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings(REFUSED_CONNECTION),
]
DX = "1.2.840.10008.5.1.4.1.1.1.1"
_INSTANCE = "1.2.840.10008.1.20.1.1"


def request(uids: Sequence[str], sop_class: str = DX) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = "1.2.3"
    asked.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        asked.ReferencedSOPSequence.append(item)
    return asked


def ask(entity: Entity, uids: Sequence[str], title: str, sop_class: str = DX, **options: Any) -> Any:
    association = associate(entity, [COMMITMENT], title, **options)
    status, _ = association.send_n_action(request(uids, sop_class), 1, COMMITMENT, _INSTANCE)
    assert status.Status == 0
    return association


def outcome(report: tuple[int, Any]) -> tuple[int, list[str], list[tuple[str, int]]]:
    event, content = report
    assert content.TransactionUID == "1.2.3"
    committed = [str(item.ReferencedSOPInstanceUID) for item in content.get("ReferencedSOPSequence", [])]
    failed = content.get("FailedSOPSequence", [])
    return event, committed, [(str(item.ReferencedSOPInstanceUID), item.FailureReason) for item in failed]


def test_the_result_comes_on_the_senders_own_association(tmp_path: Path) -> None:
    from pynetdicom import evt

    image = write_dicom(tmp_path / "1.dcm", 1)
    uid = str(pydicom.dcmread(image).SOPInstanceUID)
    reports: list[tuple[int, Any]] = []

    def report(event: Any) -> tuple[int, None]:
        reports.append((event.request.EventTypeID, event.event_information))
        return 0, None

    with listening(tmp_path) as here:
        assert send(here.entity, [image]) == [0]
        here.safe = {"1.2.99"}
        handlers = [(evt.EVT_N_EVENT_REPORT, report)]
        association = ask(here.entity, [uid, "1.2.99", "1.2.77"], "CT1", evt_handlers=handlers)
        wait_for(lambda: reports)
        association.release()
        assert outcome(reports[0]) == (2, [uid, "1.2.99"], [("1.2.77", 0x0112)])
        wait_for(lambda: not list((tmp_path / "received" / "commitments").iterdir()))
        assert here.news.total() == 0


def test_an_object_that_is_asked_for_as_one_of_another_class_is_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "_FIRST_S", 0.1)
    image = write_dicom(tmp_path / "1.dcm", 1)
    uid = str(pydicom.dcmread(image).SOPInstanceUID)
    entity = Entity("ARCHIVE", "127.0.0.1", free_port())
    with listening(tmp_path, {"ARCHIVE": entity}) as here, archive([DX], entity.port) as there:
        assert send(here.entity, [image], "ARCHIVE") == [0]
        ask(here.entity, [uid], "ARCHIVE", "1.2.840.10008.5.1.4.1.1.2").release()
        wait_for(lambda: there.reports)
        assert outcome(there.reports[0]) == (2, [], [(uid, 0x0119)])


def test_the_result_goes_to_the_address_that_is_named_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "_FIRST_S", 0.1)
    image = write_dicom(tmp_path / "1.dcm", 1)
    uid = str(pydicom.dcmread(image).SOPInstanceUID)
    entity = Entity("ARCHIVE", "127.0.0.1", free_port())
    with listening(tmp_path, {"ARCHIVE": entity}) as here:
        assert send(here.entity, [image], "ARCHIVE") == [0]
        ask(here.entity, [uid], "ARCHIVE").release()  # nobody listens there yet
        (note,) = (tmp_path / "received" / "commitments").iterdir()
        assert note.stat().st_mode & 0o77 == 0
    with listening(tmp_path, {"ARCHIVE": entity}) as here, archive([DX], entity.port) as there:
        wait_for(lambda: there.reports)
        assert outcome(there.reports[0]) == (1, [uid], [])
        wait_for(lambda: not note.exists())
        assert len(there.reports) == 1


def test_a_result_that_cannot_be_delivered_has_its_line_and_names_nobody(tmp_path: Path) -> None:
    with listening(tmp_path) as here:
        ask(here.entity, [STUDY_UID], "DR_HOUSE").release()
        wait_for(lambda: here.news.total())
        (sentence,) = here.news
    assert "--allow-ae AET@HOST:PORT" in sentence
    assert "HOUSE" not in sentence


@pytest.mark.parametrize(("action", "uids", "status"), [(2, ["1.2"], 0x0123), (1, [], 0x0114)])
def test_other_actions_and_empty_requests_are_refused(
    tmp_path: Path, action: int, uids: list[str], status: int
) -> None:
    with listening(tmp_path) as here:
        association = associate(here.entity, [COMMITMENT])
        answer, _ = association.send_n_action(request(uids), action, COMMITMENT, _INSTANCE)
        association.release()
        assert answer.Status == status
        assert not list((tmp_path / "received" / "commitments").iterdir())
