"""A receiver of DIMSE on loopback: what it answers for is on the disk, and nobody takes it whole."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom")

from medclip.errors import MedclipError, Reason
from medclip.files.dimse import bounded_server, received
from medclip.files.dimse.receiver import stored_classes
from medclip.settings import Settings
from tests.kits.dimse import (
    INSTALL,
    REFUSED_CONNECTION,
    STORESCU,
    HalfSender,
    Listening,
    associate,
    listening,
    send,
    storescu,
    wait_for,
)
from tests.kits.scoring import PLANTED, STUDY_UID, write_dicom

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings(REFUSED_CONNECTION),
]
DX = "1.2.840.10008.5.1.4.1.1.1.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Listening]:
    """A receiver."""
    with listening(tmp_path) as receiver:
        yield receiver


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of 14 kB."""
    return write_dicom(tmp_path / "image.dcm", 1)


def test_an_object_is_stored_as_the_file_that_it_was_under_hashed_names(here: Listening, image: Path) -> None:
    other = write_dicom(image.with_name("other.dcm"), 2)
    assert send(here.entity, [image, other]) == [0, 0]
    assert len(here.files()) == 2
    assert len({name.partition("/")[0] for name in here.files()}) == 1
    read = {str(each.SOPInstanceUID): each for each in map(pydicom.dcmread, (image, other))}
    for name in here.files():
        path = here.received.studies / name
        dataset = pydicom.dcmread(path)
        assert dataset == read[str(dataset.SOPInstanceUID)]
        assert STUDY_UID not in name
        assert path.stat().st_mode & 0o77 == 0
        assert b"SCANNER" not in path.read_bytes()  # who sent it is not kept
    assert here.news.total() == 0


def test_an_object_is_on_the_disk_before_its_name_and_its_name_before_the_answer(
    here: Listening, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace, bring_to_disk = os.fsync, os.replace, received.bring_to_disk

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            steps.append("bytes")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (replace(*paths), steps.append("name")))
    monkeypatch.setattr(received, "bring_to_disk", lambda path: (bring_to_disk(path), steps.append("folder")))
    assert send(here.entity, [image]) == [0]
    assert steps == ["bytes", "folder", "name", "folder"]


def test_an_echo_is_answered(here: Listening) -> None:
    association = associate(here.entity, [VERIFICATION])
    assert association.send_c_echo().Status == 0
    association.release()


def test_the_same_object_is_one_file_and_of_other_content_the_later_counts(here: Listening, tmp_path: Path) -> None:
    image = write_dicom(tmp_path / "1.dcm", 1)
    assert send(here.entity, [image, image], "CT1") == [0, 0]
    (name,) = here.files()
    first = (here.received.studies / name).stat()
    assert send(here.entity, [image], "CT2") == [0]
    assert (here.received.studies / name).stat() == first
    corrected = write_dicom(tmp_path / "2.dcm", 1, PatientName="RÖNTGEN^ANNA")
    assert send(here.entity, [corrected]) == [0]
    assert here.files() == [name]
    assert str(pydicom.dcmread(here.received.studies / name).PatientName) == "RÖNTGEN^ANNA"
    assert here.left() == [Path(name).name]
    assert any("other content" in sentence for sentence in here.news)
    assert here.received.num_bytes == (here.received.studies / name).stat().st_size


def test_two_senders_of_one_study_at_once_are_one_study(here: Listening, tmp_path: Path) -> None:
    files = [write_dicom(tmp_path / f"{n}.dcm", n) for n in range(8)]
    statuses: list[int | None] = []
    senders = [
        threading.Thread(target=lambda some=some, title=title: statuses.extend(send(here.entity, some, title)))
        for some, title in ((files[:6], "CT1"), (files[::-1][:6], "CT2"))
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert statuses == [0] * 12
    assert len(here.files()) == 8
    assert len({name.partition("/")[0] for name in here.files()}) == 1


def test_a_list_of_titles_refuses_others_and_a_wrong_called_title_is_refused(tmp_path: Path, image: Path) -> None:
    with listening(tmp_path / "list", {"CT1": None}) as here:
        assert send(here.entity, [image], "CT1") == [0]
        refused = associate(here.entity, [DX], "DR_HOUSE")
        assert refused.is_rejected
        misnamed = associate(here.entity, [DX], "CT1", called="ORTHANC")
        assert misnamed.is_rejected
        wait_for(lambda: here.news.total() == 2)
        sentences = " ".join(here.news)
    assert "--allow-ae" in sentences
    assert "another AE title" in sentences
    assert "HOUSE" not in sentences


def test_classes_without_an_image_are_refused_when_they_are_proposed(here: Listening, image: Path) -> None:
    association = associate(here.entity, [DX, REPORT])
    assert [str(context.abstract_syntax) for context in association.rejected_contexts] == [REPORT]
    association.release()
    wait_for(lambda: here.news.total())
    assert "Comprehensive SR Storage" in next(iter(here.news))
    associate(here.entity, [DX, REPORT]).release()
    assert here.news.total() == 1  # said once
    assert {DX, "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.481.1"} < set(stored_classes())
    assert not {REPORT, "1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.481.10"} & set(stored_classes())


def test_an_object_of_another_class_than_was_agreed_is_refused(here: Listening, image: Path) -> None:
    association = associate(here.entity, [(DX, ["1.2.840.10008.1.2.1"])])
    dataset = pydicom.dcmread(image)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # the header names CR, the sender agreed on DX
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(association, "_get_valid_context", lambda *_, **__: association.accepted_contexts[0])
        assert association.send_c_store(dataset).Status == 0x0122
        association.release()
    assert here.left() == []


def test_an_object_without_a_study_and_one_of_medclip_leave_nothing(here: Listening, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_dicom(tmp_path / "1.dcm", 1))
    del dataset.StudyInstanceUID
    dataset.save_as(tmp_path / "lost.dcm")
    ours = write_dicom(tmp_path / "ours.dcm", 2, Manufacturer="medclip")
    assert send(here.entity, [tmp_path / "lost.dcm", ours]) == [0xC000, 0]
    assert here.left() == []
    assert here.received.num_bytes == 0


@pytest.mark.parametrize("num_bytes", [2000, 14_000])
def test_an_abort_in_the_middle_of_an_object_leaves_nothing(here: Listening, image: Path, num_bytes: int) -> None:
    with HalfSender(here.entity, image) as sender:
        sender.begin(num_bytes)
        wait_for(lambda: here.received.num_bytes > 1500)
        assert len(here.left()) == 1
    wait_for(lambda: not here.left())
    wait_for(lambda: here.received.num_bytes == 0)
    assert [*here.news] == ["Associations ended in the middle of an object: nothing of it was kept."]
    assert send(here.entity, [image]) == [0]


def test_a_connection_that_breaks_in_the_middle_leaves_nothing(here: Listening, image: Path) -> None:
    with HalfSender(here.entity, image) as sender:
        sender.begin(3000)
        wait_for(here.left)
        sender.socket.shutdown(2)
    wait_for(lambda: not here.left())


def test_a_sender_that_never_ends_is_dropped(here: Listening, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "SILENT_S", 0.2)
    with HalfSender(here.entity, image) as drip:
        drip.begin(100)
        for _ in range(200):  # one byte at a time, in PDUs of their own
            try:
                drip.send_value(b"\x00x")
            except OSError:
                break
            threading.Event().wait(0.02)
        wait_for(lambda: any("bytes a second" in sentence for sentence in here.news))
    wait_for(lambda: not here.left())
    with HalfSender(here.entity, image) as silent:
        silent.begin(100)
        silent.socket.sendall(b"\x04\x00\x00\x00\x10\x00half")  # and then no more of this PDU
        wait_for(lambda: not here.left())


def test_a_pdu_beyond_what_was_agreed_ends_the_association(here: Listening, image: Path) -> None:
    with HalfSender(here.entity, image) as sender:
        sender.begin(100)
        wait_for(here.left)
        sender.socket.sendall(b"\x04\x00\xff\xff\xff\xf0")
        wait_for(lambda: not here.left())


def test_a_silent_association_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "SILENT_S", 0.2)
    with listening(tmp_path) as here:
        association = associate(here.entity, [VERIFICATION])
        assert association.is_established
        wait_for(lambda: association.is_aborted)


def test_so_many_associations_at_once_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_server, "MOST_ASSOCIATIONS", 2)
    with listening(tmp_path) as here:
        some = [associate(here.entity, [VERIFICATION]) for _ in range(3)]
        assert [each.is_established for each in some] == [True, True, False]
        wait_for(lambda: any("are the most" in sentence for sentence in here.news))
        for each in some[:2]:
            each.release()
        wait_for(lambda: associate(here.entity, [VERIFICATION]).is_established)


def test_a_full_folder_and_a_full_disk_are_answered_and_nothing_is_lost(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_dicom(tmp_path / "other.dcm", 2)
    size = image.stat().st_size
    with listening(tmp_path, settings=Settings(spool_bytes=size + 1000)) as here:
        assert send(here.entity, [image, other]) == [0, 0xA700]
        assert len(here.left()) == 1
        assert any("spool_bytes" in sentence for sentence in here.news)
        ((study, files),) = here.received.files()
        here.received.may_go(study, files)  # its rows are committed: room can be made
        assert send(here.entity, [other]) == [0]
        assert len(here.left()) == 1
    with listening(tmp_path / "floor") as here:
        monkeypatch.setattr(received, "FLOOR_BYTES", 1 << 62)
        assert send(here.entity, [image]) == [0xA700]
        monkeypatch.undo()
        assert here.left() == []
        assert send(here.entity, [image]) == [0]
    with listening(tmp_path / "large", settings=Settings(max_file_bytes=5000)) as here:
        assert send(here.entity, [image]) == [0xA700]
        assert here.received.num_bytes == 0


def test_a_disk_that_takes_no_more_is_answered_with_out_of_resources(
    here: Listening, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(received.os, "fsync", full)
        assert send(here.entity, [image]) == [0xA700]
    assert here.left() == []
    assert send(here.entity, [image]) == [0]


def test_what_a_kill_left_half_written_is_removed_and_whole_files_stay(tmp_path: Path, image: Path) -> None:
    with listening(tmp_path) as here:
        assert send(here.entity, [image]) == [0]
    (here.received.studies / ".medclip-0123456789ab.part").write_bytes(b"half")
    with listening(tmp_path) as again:
        assert again.left() == [Path(name).name for name in again.files()]
        assert len(again.files()) == 1
        assert again.received.num_bytes == (again.received.studies / again.files()[0]).stat().st_size


def test_a_port_that_is_in_use_and_an_address_of_another_machine_are_refused(tmp_path: Path) -> None:
    with listening(tmp_path / "a") as here:
        again = listening(tmp_path / "b", port=here.entity.port)
        with pytest.raises(MedclipError) as busy, again:
            pass
    assert busy.value.reason is Reason.BUSY
    with pytest.raises(MedclipError, match="no address of this machine") as elsewhere:
        listening(tmp_path / "c", host="203.0.113.7").__enter__()
    assert elsewhere.value.reason is Reason.WRONG_USE


def test_no_identifier_reaches_the_log(
    here: Listening, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    image = write_dicom(tmp_path / "1.dcm", 1)
    send(here.entity, [image])
    with HalfSender(here.entity, image) as sender:
        sender.begin(3000)
        wait_for(lambda: len(here.left()) == 2)
    associate(here.entity, [DX], called="NOBODY")
    wait_for(lambda: here.news.total())
    said = caplog.text if "pynetdicom" not in {record.name.split(".")[0] for record in caplog.records} else "x"
    printed = "".join(capfd.readouterr()) + " ".join(here.news) + said
    assert not [value for value in (*PLANTED.values(), STUDY_UID, "SCANNER", "NOBODY") if value in printed]


@pytest.mark.skipif(STORESCU is None, reason=INSTALL)
def test_storescu_sends_and_is_refused(here: Listening, image: Path) -> None:
    assert storescu(here.entity, image).returncode == 0
    assert len(here.files()) == 1
    content = (here.received.studies / here.files()[0]).read_bytes()
    assert storescu(here.entity, image).returncode == 0
    assert (here.received.studies / here.files()[0]).read_bytes() == content
    assert "Not Recognized" in storescu(here.entity, image, called="OTHER").stderr


def test_the_file_of_an_object_depends_on_the_object_alone(tmp_path: Path, image: Path) -> None:
    hashes = set()
    for title in ("CT1", "PACS"):
        with listening(tmp_path / title) as here:
            send(here.entity, [image], title)
            hashes.add(hashlib.sha256((here.received.studies / here.files()[0]).read_bytes()).hexdigest())
    assert len(hashes) == 1
