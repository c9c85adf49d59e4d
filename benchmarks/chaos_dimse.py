"""Claim: whatever is killed while a scanner sends and a PACS takes results, tables are equal and each result is once.

Usage: python benchmarks/chaos_dimse.py [--studies 40] [--kills 10] [--folder SCRATCH] [--model PACK] [--seed 1]

Starts `medclip watch dicom://...` with results that go to an Orthanc by C-STORE, and a scanner that sends each image
until it is answered with success. Kills (SIGKILL) take turns: the receiver in the middle of an object (the scanner has
sent a part of one), the receiver while it scores or sends results, the Orthanc. Whoever was killed is started again.
At the end the tables must be those of the images scored from a folder, and Orthanc must have one report of each study.
It needs Orthanc (apt-get install orthanc) and the extras dimse and dicom.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pydicom
from pynetdicom import AE
from soak import UID_ROOT, dicom

IMAGES = 1
"""Of a study. One that is scored before its last image has come has a second report, as it should."""
LIMIT_S = 300.0


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def wait_for(holds, what: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: it did not happen in {LIMIT_S:.0f} s")
        time.sleep(0.05)


def write_studies(folder: Path, num: int) -> list[Path]:
    """Write radiographs of two images a study."""
    folder.mkdir()
    files = []
    for study in range(num):
        for image in range(IMAGES):
            path = folder / f"{study}_{image}.dcm"
            path.write_bytes(dicom("DX"))
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID = f"{UID_ROOT}.1.{study}"
            dataset.SeriesInstanceUID = f"{UID_ROOT}.1.{study}.1"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}.1.{study}.1.{image}"
            dataset.PatientID = f"P{study}"
            pixels = dataset.pixel_array.copy()
            pixels[::2] += (study * IMAGES + image) * 3
            dataset.PixelData = pixels.tobytes()
            dataset.save_as(path)
            files.append(path)
    return files


class Scanner(threading.Thread):
    """Sends each file until it is answered with success."""

    def __init__(self, files: list[Path], port: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.files, self.port, self.pause_s = files, port, pause_s
        self.answered: list[str] = []
        self.num_again = 0

    def run(self) -> None:
        """Send."""
        for file in self.files:
            dataset = pydicom.dcmread(file)
            while not self.send(dataset):
                self.num_again += 1
                time.sleep(0.3)
            self.answered.append(file.name)
            time.sleep(self.pause_s)

    def send(self, dataset: pydicom.Dataset) -> bool:
        """Send once; return whether that was answered with success."""
        ae = AE(ae_title="SCANNER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", self.port, ae_title="MEDCLIP")
        if not association.is_established:
            return False
        try:
            return getattr(association.send_c_store(dataset), "Status", None) == 0
        except (RuntimeError, ValueError):
            return False
        finally:
            association.release()


def send_half(port: int, file: Path) -> None:
    """Send the command and a part of an object, so that the receiver is in the middle of it."""
    import io

    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.pdu_primitives import P_DATA

    dataset = pydicom.dcmread(file)
    ae = AE(ae_title="HALF")
    ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title="MEDCLIP")
    if not association.is_established:
        return
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, f"{UID_ROOT}.9.9"
    request.DataSet = io.BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    association.dul.send_pdu(next(message.encode_msg(1, 16382)))
    part = P_DATA()
    part.presentation_data_value_list.append((1, b"\x00" + file.read_bytes()[132:4000]))
    association.dul.send_pdu(part)


def ask(url: str, body: bytes | None = None):
    """Ask Orthanc; None while it does not answer."""
    try:
        with urlopen(Request(url, body), timeout=20) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


def wait_for_report(reports: Callable[[], list[str]], most: int) -> None:
    """Wait until another report is stored, where there will be one."""
    before = len(reports())
    wait_for(lambda: len(reports()) > before or before >= most, "a report is stored")


def settings_of(scratch: Path, http_port: int, dicom_port: int) -> dict[str, object]:
    """Return the settings of Orthanc."""
    return {
        **dict.fromkeys(("StorageDirectory", "IndexDirectory"), str(scratch / "storage")),
        **{"HttpPort": http_port, "DicomPort": dicom_port, "DicomAet": "ORTHANC", "DicomAlwaysAllowStore": True},
        **{"RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": []},
    }


def compare(folders: Sequence[Path]) -> int:
    """Compare the scores of two runs; return how many there are."""
    order = [(name, "ascending") for name in ("study", "task", "class")]
    tables = [pq.read_table(each / "scores.parquet").drop_columns(["files"]).sort_by(order) for each in folders]
    if not tables[0].equals(tables[1]):
        raise SystemExit("the tables differ from those of a folder")
    return tables[0].num_rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--model", default="medclip-mini")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}")
    if shutil.which("Orthanc") is None:
        raise SystemExit("Orthanc is missing. Run: apt-get install orthanc")
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        run(Path(scratch), args.studies, args.kills, args.model, rng)


def run(scratch: Path, num_studies: int, num_kills: int, model: str, rng: random.Random) -> None:
    """Kill and compare."""
    files = write_studies(scratch / "in", num_studies)
    port, dicom_port, http_port = free_port(), free_port(), free_port()
    options = ["--model", model, "--modality", "xray", "--workers", "1"]
    medclip = [sys.executable, "-m", "medclip.cli.main"]
    log = (scratch / "log").open("ab")
    (scratch / "orthanc.json").write_text(json.dumps(settings_of(scratch, http_port, dicom_port)))
    url = f"http://127.0.0.1:{http_port}"

    def start_orthanc() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["Orthanc", str(scratch / "orthanc.json")], stdout=log, stderr=log)
        wait_for(lambda: ask(f"{url}/system") is not None, "Orthanc starts")
        return process

    def start_receiver() -> subprocess.Popen[bytes]:
        own = ["watch", f"dicom://MEDCLIP@127.0.0.1:{port}", "--out", str(scratch / "out"), "--settle-s", "1"]
        own += ["--keep-s", "0", "--export", f"sr=dicom://ORTHANC@127.0.0.1:{dicom_port}", *options]
        process = subprocess.Popen([*medclip, *own], stdout=log, stderr=log)
        wait_for(lambda: listens(port) or process.poll() is not None, "the receiver listens")
        return process

    def reports() -> list[str]:
        return ask(f"{url}/tools/find", b'{"Level": "Instance", "Query": {"Modality": "SR"}}') or []

    began = time.monotonic()
    pacs, receiver = start_orthanc(), start_receiver()
    scanner = Scanner(files, port, pause_s=0.7 * num_kills * 8 / len(files))
    scanner.start()
    for kill in range(num_kills):
        kind = ("object", "results", "pacs")[kill % 3]
        if kind == "object":
            time.sleep(rng.uniform(0.5, 3.0))
            send_half(port, files[0])
            wait_for(lambda: list((scratch / "out" / "received" / "studies").glob(".medclip-*")), "half an object came")
        else:
            wait_for_report(reports, num_studies)
            time.sleep(rng.uniform(0, 0.3))
        victim = pacs if kind == "pacs" else receiver
        if victim.poll() is not None:
            raise SystemExit(f"{kind}: it had ended with {victim.returncode}\n{(scratch / 'log').read_text()[-3000:]}")
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        row = [kill + 1, kind, f"{time.monotonic() - began:.0f} s", f"{len(scanner.answered)} answered"]
        pacs, receiver = (start_orthanc(), receiver) if kind == "pacs" else (pacs, start_receiver())
        print("| " + " | ".join(str(value) for value in (*row, f"{len(reports())} reports")) + " |", flush=True)
    scanner.join()

    def is_done() -> bool:
        left = [name for _, _, names in os.walk(scratch / "out" / "received" / "studies") for name in names]
        return not left and len(reports()) >= num_studies

    wait_for(is_done, "all is scored and sent")
    time.sleep(2)
    stored = reports()
    of_study = {ask(f"{url}/instances/{uid}/study")["ID"] for uid in stored}
    for process in (receiver, pacs):
        process.terminate()
    code, _ = receiver.wait(), pacs.wait()
    subprocess.run(
        [*medclip, "score", str(scratch / "in"), "--out", str(scratch / "folder"), *options],
        check=True,
        stdout=log,
        stderr=log,
    )
    num_rows = compare([scratch / "out", scratch / "folder"])
    if len(stored) != num_studies or len(of_study) != num_studies:
        raise SystemExit(f"{len(stored)} reports of {len(of_study)} studies, not {num_studies}")
    print(
        f"{num_kills} kills: {len(files)} images answered for, {scanner.num_again} times sent again, none lost; scores "
        f"equal to those of a folder ({num_rows} rows), {len(stored)} reports of {len(of_study)} studies; "
        f"the receiver ended with {code} after SIGTERM"
    )


if __name__ == "__main__":
    main()
