"""What is asked of a server of DICOMweb, and what its faults become; by a server of our own on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.files.dicomweb import server as server_module
from medclip.files.dicomweb.server import DicomwebServer, address_of

pytest.importorskip("dicomweb_client")
pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
Answer = tuple[int, str, bytes]
STUDY = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00201208": {"vr": "IS", "Value": [2]}}


def as_json(values: object) -> Answer:
    return 200, "application/dicom+json", json.dumps(values).encode()


@contextmanager
def listening(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[DicomwebServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, kind, body = answer(self.path, dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    server = DicomwebServer(address_of(f"dicomweb://127.0.0.1:{http.server_port}/dicom-web"))
    try:
        yield server
    finally:
        server.close()
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.01,) * 4)
    monkeypatch.setattr(server_module, "FEW_PAUSES_S", (0.01,) * 2)
    for name in ("USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MEDCLIP_DICOMWEB_{name}", raising=False)


def pages(path: str, items: list[object], most: int) -> Answer:
    offset = int(path.partition("offset=")[2].partition("&")[0] or 0)
    return as_json(items[offset : offset + most])


def test_all_pages_are_asked_for_whatever_a_server_sends_at_once() -> None:
    items: list[object] = [{"0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]}} for n in range(7)]
    with listening(lambda path, _: pages(path, items, 3)) as server:
        assert [uid for uid, _ in server.studies({"Modality": "CR"})] == [f"1.2.{n}" for n in range(7)]
    with listening(lambda path, _: as_json(items)) as server:  # knows no offset
        assert len(list(server.studies({}))) == 7


def test_a_busy_server_is_asked_again() -> None:
    answers = iter([(503, "text/plain", b""), (429, "text/plain", b""), as_json([STUDY]), as_json([])])
    with listening(lambda *_: next(answers)) as server:
        assert list(server.studies({})) == [("1.2.3", 2)]


def test_a_server_that_stays_away_ends_with_one_sentence_that_names_no_study() -> None:
    with listening(lambda *_: (502, "text/plain", b"1.2.3 of ROENTGEN")) as server, pytest.raises(MedclipError) as away:
        server.read_study("1.2.3", lambda _: None)
    assert away.value.reason is Reason.UNREACHABLE
    assert "ROENTGEN" not in str(away.value)
    assert "1.2.3" not in str(away.value)
    assert "5 attempts" in str(away.value)


def test_a_study_that_a_server_cannot_send_is_the_studys_fault_where_the_server_answers_else() -> None:
    def answer(path: str, _: dict[str, str]) -> Answer:
        return (500, "text/plain", b"") if "/studies/" in path else as_json([])

    with listening(answer) as server, pytest.raises(MedclipError) as refused:
        server.read_study("1.2.3", lambda _: None)
    assert refused.value.reason is Reason.READ_ERROR


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"USER": "night", "PASSWORD": "hush"}, "Basic bmlnaHQ6aHVzaA=="),
        ({"TOKEN": "hush"}, "Bearer hush"),
        ({}, None),
    ],
)
def test_credentials_come_from_the_environment_and_stand_in_no_error(
    variables: dict[str, str], header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MEDCLIP_DICOMWEB_{name}", value)
    seen = []

    def answer(_: str, headers: dict[str, str]) -> Answer:
        seen.append(headers.get("Authorization"))
        return 401, "text/plain", b""

    with listening(answer) as server, pytest.raises(MedclipError) as refused:
        list(server.studies({}))
    assert seen == [header]
    assert refused.value.reason is Reason.PERMISSION_DENIED
    assert "hush" not in str(refused.value) + repr(server)


def test_what_is_no_dicomweb_is_said() -> None:
    with listening(lambda *_: (200, "text/html", b"<html>")) as server, pytest.raises(MedclipError) as refused:
        list(server.studies({}))
    assert refused.value.reason is Reason.READ_ERROR
    assert "/dicom-web" in refused.value.hint


def test_files_come_as_they_are_stored_also_those_that_are_none() -> None:
    body = b"".join(b"\r\n--edge\r\nContent-Type: application/dicom\r\n\r\n" + data for data in (b"one", b"\xff\x00"))
    accepted = []

    def answer(_: str, headers: dict[str, str]) -> Answer:
        accepted.append(headers["Accept"])
        return 200, 'multipart/related; type="application/dicom"; boundary=edge', body + b"\r\n--edge--"

    taken: list[bytes] = []
    with listening(answer) as server:
        assert server.read_study("1.2.3", lambda data: taken.append(bytes(data))) == 2
    assert taken == [b"one", b"\xff\x00"]
    assert "transfer-syntax=*" in accepted[0]


def test_a_run_that_stops_waits_for_no_server() -> None:
    def answer(*_: object) -> Answer:
        server.stop.set()
        return 503, "text/plain", b""

    with listening(answer) as server, pytest.raises(MedclipError) as refused:
        list(server.studies({}))
    assert "stops" in str(refused.value)


def test_https_to_a_server_that_speaks_http_is_not_called_a_matter_of_certificates() -> None:
    with listening(lambda *_: as_json([])) as plain:
        port = plain.place.url.rpartition(":")[2].partition("/")[0]
        server = DicomwebServer(address_of(f"dicomwebs://127.0.0.1:{port}/dicom-web"))
        with pytest.raises(MedclipError) as refused:
            list(server.studies({}))
        server.close()
    assert refused.value.reason is Reason.READ_ERROR
    assert "certificate" not in str(refused.value)
    assert "dicomweb://" in refused.value.hint


def test_a_path_that_a_server_does_not_know_leads_to_the_url() -> None:
    with listening(lambda *_: (400, "text/plain", b"")) as server, pytest.raises(MedclipError) as refused:
        list(server.studies({}))
    assert "/dicom-web" in refused.value.hint


def test_a_token_stands_in_no_text_of_what_holds_it() -> None:
    assert "hush" not in repr(server_module._Bearer("hush"))


def test_empty_values_of_a_listing_are_none() -> None:
    nothing = {"vr": "UI", "Value": [None]}
    study = {**STUDY, "00201208": nothing}
    image = {"00080018": {"vr": "UI", "Value": ["1.2.3.4"]}, "0020000E": nothing, "00080016": nothing, "00080070": {}}

    def answer(path: str, _: dict[str, str]) -> Answer:
        return pages(path, [image if "/instances" in path else study], 5)

    with listening(answer) as server:
        assert list(server.studies({})) == [("1.2.3", None)]
        (listed,) = server.instances("1.2.3")
    assert (listed.uid, listed.series, listed.sop_class, listed.manufacturer) == ("1.2.3.4", "", "", "")


def test_modalities_of_studies_are_asked_for_and_may_be_missing() -> None:
    studies = [
        {**STUDY, "00080061": {"vr": "CS", "Value": ["CR", None, "SR"]}},
        {"0020000D": {"vr": "UI", "Value": ["1.2.4"]}, "00080061": {"vr": "CS"}},
    ]
    paths = []

    def answer(path: str, headers: dict[str, str]) -> Answer:
        paths.append(path)
        return as_json([] if "offset=2" in path else studies)

    with listening(answer) as server:
        listed = list(server.studies_with_modalities({"PatientID": "1"}))
    assert listed == [("1.2.3", 2, ("CR", "SR")), ("1.2.4", None, ())]
    assert "00080061" in paths[0]
