"""A real PACS sends images, asks for storage commitment and takes results, through kills of every side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from medclip.api.score import score
from medclip.files.dimse.address import Entity
from medclip.runs.outputs.score_run import read_run
from tests.kits.dimse import INSTALL as DCMTK
from tests.kits.dimse import STORESCU, HalfSender, send, storescu, wait_for
from tests.kits.pacs import INSTALL, ORTHANC, ask, fill, free_port, orthanc
from tests.runs.operations.test_reception import answers, num_done, received, studies, watching

pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(ORTHANC is None, reason=INSTALL),
]


def reports(url: str) -> list[str]:
    return ask(f"{url}/tools/find", b'{"Level": "Instance", "Query": {"Modality": "SR"}}')


def post(url: str, body: object) -> object:
    return ask(url, json.dumps(body).encode())


def test_orthanc_sends_images_asks_for_their_commitment_and_takes_the_results(pack: Path, tmp_path: Path) -> None:
    out, files = tmp_path / "out", studies(tmp_path / "in", 4)
    port, dicom_port = free_port(), free_port()
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs", dicom_port=dicom_port, modalities={"MEDCLIP": port}) as url:
        pacs = f"ORTHANC@127.0.0.1:{dicom_port}"
        options = {"keep_s": 0, "export": f"sr=dicom://{pacs}", "allow_ae": pacs}
        with watching(out, pack, port, **options):
            fill(url, files)
            post(f"{url}/modalities/MEDCLIP/store", ask(f"{url}/studies"))
            wait_for(lambda: len(reports(url)) == 4)
            wait_for(lambda: not received(out))
            objects = [(str(each.SOPClassUID), str(each.SOPInstanceUID)) for each in map(pydicom.dcmread, files)]
            for asked, status in ((objects, "Success"), ([*objects, (objects[0][0], "1.2.3.4")], "Failure")):
                job = post(f"{url}/modalities/MEDCLIP/storage-commitment", {"DicomInstances": asked})
                assert isinstance(job, dict)
                wait_for(lambda path=job["Path"], status=status: ask(f"{url}{path}")["Status"] == status)
        assert len(reports(url)) == 4
    of_folder = score(tmp_path / "in", tmp_path / "folder", model=pack, prompt="a fracture", min_confidence=0.0)
    assert answers(read_run(out)) == answers(of_folder)


@contextmanager
def process(out: Path, pack: Path, port: int, pacs: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command; it is killed at the end."""
    command = [
        sys.executable,
        "-m",
        "medclip.cli.main",
        "watch",
        f"dicom://MEDCLIP@127.0.0.1:{port}",
        "--out",
        str(out),
    ]
    command += ["--export", f"sr={pacs}", "--model", str(pack), "--prompt", "a fracture", "--min-confidence", "0"]
    command += ["--workers", "1", "--settle-s", "1", "--keep-s", "0"]
    with log.open("ab") as file, subprocess.Popen(command, stdout=file, stderr=file) as watching_process:
        try:
            yield watching_process
        finally:
            watching_process.kill()


def listens(port: int) -> bool:
    import socket

    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def test_kills_lose_no_image_that_was_answered_for_and_send_each_result_once(pack: Path, tmp_path: Path) -> None:
    out, log, files = tmp_path / "out", tmp_path / "log", studies(tmp_path / "in", 6)
    port, dicom_port, http_port = free_port(), free_port(), free_port()
    here, pacs = Entity("MEDCLIP", "127.0.0.1", port), f"dicom://ORTHANC@127.0.0.1:{dicom_port}"
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs", http_port, dicom_port) as url:
        with process(out, pack, port, pacs, log):  # killed in the middle of an object
            wait_for(lambda: listens(port), 120)
            assert send(here, files[:5]) == [0] * 5
            with HalfSender(here, files[5]) as half:
                half.begin(5000)
                wait_for(lambda: len(received(out)) == 6)
        answered = [path for path in received(out) if not path.name.startswith(".")]
        assert len(answered) == 5
        with process(out, pack, port, pacs, log):  # killed while results are sent
            wait_for(lambda: listens(port), 120)
            assert len(received(out)) == 5  # what was half received is gone
            assert send(here, files[5:]) == [0] * 7
            wait_for(lambda: len(reports(url)) >= 1, 120)
    with process(out, pack, port, pacs, log):  # while the PACS is away
        wait_for(lambda: listens(port), 120)
        late = files[0].with_name("late.dcm")
        dataset = pydicom.dcmread(files[0])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5")
        dataset.StudyInstanceUID = "1.2.3.4"
        dataset.save_as(late)
        if STORESCU is not None:
            assert storescu(here, late).returncode == 0, DCMTK
        else:
            assert send(here, [late]) == [0]
        with orthanc(tmp_path / "pacs", http_port, dicom_port) as url:
            wait_for(lambda: num_done(out) == 13 and not received(out), 240)
            assert len(reports(url)) == 7
    of_folder = score(tmp_path / "in", tmp_path / "folder", model=pack, prompt="a fracture", min_confidence=0.0)
    assert answers(read_run(out)) == answers(of_folder)
