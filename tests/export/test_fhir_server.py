"""Bundles go to a FHIR server once each, whatever it answers; credentials are in no error, and patients in no clear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.export.fhir_server import FhirServer, address_of
from medclip.files import stores
from medclip.files.dicomweb import server as dicomweb
from tests.kits.fhir_server import FhirAnswer, SmallFhir, fhir_server
from tests.kits.scoring import PLANTED, write_dicom, write_png

pytest.importorskip("requests")
pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
CALL: dict[str, Any] = {"modality": "xray", "workers": 1}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.01,) * 4)
    for name in ("USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MEDCLIP_FHIR_{name}", raising=False)


@pytest.fixture
def server() -> Iterator[SmallFhir]:
    """A server without resources."""
    with fhir_server() as listening:
        yield listening


BUNDLE = json.dumps(
    {
        "resourceType": "Bundle",
        "entry": [
            {
                "resource": {"resourceType": kind, "identifier": [{"value": f"urn:uuid:{number}"}]},
                "request": {"method": "POST", "ifNoneExist": f"identifier=x|urn:uuid:{number}"},
            }
            for number, kind in enumerate(("DiagnosticReport", "Device", "Observation"))
        ],
    }
).encode()


def client_of(server: SmallFhir, version: str = "4") -> FhirServer:
    return FhirServer(address_of(server.url), version)


def test_a_bundle_is_created_once_however_often_it_is_sent(server: SmallFhir) -> None:
    client = client_of(server)
    client.check()
    created = {"DiagnosticReport 1": "201", "Device 2": "201", "Observation 3": "201"}
    assert client.store(BUNDLE).statuses == created
    assert client.store(BUNDLE).statuses == dict.fromkeys(created, "200")
    assert client.store(BUNDLE).refused == {}
    assert len(server.kept) == 3
    client.close()


@pytest.mark.parametrize(
    "fault",
    [
        lambda answer: replace(answer, num_bytes=len(answer.body) // 2),
        lambda answer: replace(answer, body=answer.body[: len(answer.body) // 2]),
        lambda answer: replace(answer, body=json.dumps({**json.loads(answer.body), "entry": []}).encode()),
        lambda _: FhirAnswer(503),
        lambda _: FhirAnswer(504),
    ],
    ids=["cut connection", "cut JSON", "answers of none", "503", "504"],
)
def test_an_answer_that_is_lost_or_cut_is_asked_for_again_and_nothing_is_there_twice(
    server: SmallFhir, fault: Any
) -> None:
    server.after = [fault, fault]
    client = client_of(server)
    assert client.store(BUNDLE).refused == {}
    assert len(server.kept) == 3
    assert [method for method, *_ in server.asked] == ["POST"] * 3
    client.close()


def test_a_server_that_answers_half_each_time_ends_with_a_sentence(server: SmallFhir) -> None:
    server.after = [lambda answer: replace(answer, body=answer.body[:40])] * 9
    client = client_of(server)
    with pytest.raises(MedclipError, match=r"could not be stored in 5 attempts .*its answer is cut off") as half:
        client.store(BUNDLE)
    assert half.value.reason is Reason.UNREACHABLE
    client.close()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "least_s"), [("7", 7), ("Wed, 02 Dec 2099 07:00:00 GMT", 120), ("soon", 0.01)])
def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    server: SmallFhir, monkeypatch: pytest.MonkeyPatch, status: int, asked: str, least_s: float
) -> None:
    client, waited = client_of(server), list[float]()
    monkeypatch.setattr(client.stop, "wait", waited.append)
    server.before = [FhirAnswer(status, headers={"Retry-After": asked})]
    assert client.store(BUNDLE).refused == {}
    (pause_s,) = waited
    assert least_s <= pause_s <= 1.5 * least_s
    client.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_names_the_variable_and_no_token(
    server: SmallFhir, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("MEDCLIP_FHIR_TOKEN", "hush")
    server.before = [FhirAnswer(status)]
    client = client_of(server)
    with pytest.raises(MedclipError, match=f"status {status}") as refused:
        client.store(BUNDLE)
    assert refused.value.reason is Reason.PERMISSION_DENIED
    assert "MEDCLIP_FHIR_TOKEN" in refused.value.hint
    assert "hush" not in f"{refused.value}{refused.value.hint}{client!r}"
    assert server.asked[-1][2] == "Bearer hush"
    client.close()


@pytest.mark.parametrize("token", ["hush\nhush", "hüsh"])
def test_a_token_that_no_request_can_carry_is_named_by_its_variable(
    server: SmallFhir, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("MEDCLIP_FHIR_TOKEN", token)
    with pytest.raises(MedclipError, match="MEDCLIP_FHIR_TOKEN is no token") as refused:
        client_of(server).store(BUNDLE)
    assert refused.value.reason is Reason.WRONG_USE
    assert token not in f"{refused.value}{refused.value.hint}"


def test_the_line_break_at_the_end_of_a_tokens_file_is_no_part_of_it(
    server: SmallFhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCLIP_FHIR_TOKEN", "hush\n")
    client = client_of(server)
    client.store(BUNDLE)
    assert server.asked[-1][2] == "Bearer hush"
    client.close()


def test_what_leads_elsewhere_is_not_followed(server: SmallFhir) -> None:
    server.before = [FhirAnswer(302, headers={"Location": "http://127.0.0.1:1/fhir"})]
    client = client_of(server)
    with pytest.raises(MedclipError, match="leads elsewhere"):
        client.store(BUNDLE)
    client.close()


@pytest.mark.parametrize(
    ("options", "version", "sentence"),
    [
        ({"version": "5.0.0"}, "4", "speaks FHIR 5.0.0"),
        ({"capabilities": {"resourceType": "Patient"}}, "4", "no FHIR server"),
        (
            {"capabilities": {"rest": [{"resource": [{"type": "Observation", "conditionalCreate": False}]}]}},
            "4",
            "would be there twice",
        ),
    ],
)
def test_a_server_that_would_not_do_is_known_before_anything_is_sent(
    options: dict[str, Any], version: str, sentence: str
) -> None:
    with fhir_server(**options) as server:
        client = client_of(server, version)
        with pytest.raises(MedclipError, match=sentence):
            client.check()
        client.close()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://server.example/fhir", "without encryption"),
        ("https://user:word@server.example/fhir", "holds a user"),
        ("https://server.example/fhir?token=word", "holds a user, a password, a query"),
        ("https:///fhir", "is named as https://HOST/PATH"),
    ],
)
def test_an_address_that_would_show_patients_or_a_password_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(MedclipError, match=sentence) as refused:
        address_of(url)
    assert refused.value.reason is Reason.WRONG_USE
    assert "word" not in str(refused.value).replace("password", "")
    assert str(address_of("https://server.example/fhir/")) == "https://server.example/fhir"


@pytest.fixture
def run(tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run over two studies and a picture, at a time that stands still."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    write_png(tmp_path / "in" / "3.png", 3)
    medclip.score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, task="chest_xray_view")
    return tmp_path / "out"


def test_a_run_is_posted_once_and_what_was_refused_is_sent_by_the_next_call(
    run: Path, server: SmallFhir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCLIP_FHIR_TOKEN", "hush")
    words = ["export", str(run), "--as", "fhir-r4b", "--to", server.url, "--json"]

    def posted() -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        assert "hush" not in out + err
        return code, json.loads(out.splitlines()[-1])

    patient = PLANTED["PatientID"]
    is_refused = lambda resource: resource["resourceType"] == "DiagnosticReport" and patient in json.dumps(resource)  # noqa: E731
    server.refuses = is_refused
    code, said = posted()
    assert (code, said["posted"]) == (3, {"stored": 1, "refused": 2, "resources": 2})
    (by_file,) = json.loads((run / "results" / "stored.json").read_text())["refused"].values()
    assert [list(resources.values()) for resources in by_file.values()] == [["422"], ["422"]]
    assert {name for resources in by_file.values() for name in resources} == {"DiagnosticReport 1"}
    assert server.kinds.count("DiagnosticReport") == 1
    num_observations = server.kinds.count("Observation")
    server.refuses = lambda _: False
    assert posted() == (0, {**said, "posted": {"stored": 3, "refused": 0}, "exit_code": 0})
    assert server.kinds.count("DiagnosticReport") == 3
    assert server.kinds.count("Observation") == num_observations
    assert "refused" not in json.loads((run / "results" / "stored.json").read_text())
    num_asked = len(server.asked)
    assert posted()[0] == 0
    assert [method for method, *_ in server.asked[num_asked:]] == ["GET"], "what is there is not sent again"
    assert {authorisation for *_, authorisation in server.asked} == {"Bearer hush"}
    for file in run.rglob("*"):
        assert not file.is_file() or b"hush" not in file.read_bytes()


def test_a_token_that_is_missing_ends_the_call_with_the_name_of_its_variable(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fhir_server(token="hush") as server:
        assert main(["export", str(run), "--as", "fhir-r4b", "--to", server.url]) == 2
    assert "MEDCLIP_FHIR_TOKEN" in capsys.readouterr().err
    assert len(list((run / "results" / "fhir-r4b").iterdir())) == 3


def test_a_run_posts_its_bundles_at_its_end_and_a_second_one_says_what_it_replaces(
    run: Path, server: SmallFhir, pack: Path, tmp_path: Path
) -> None:
    medclip.runs.export(run, as_="fhir-r4b", to=server.url)
    to = {"export": f"fhir-r4b={server.url}", "replace": run}
    second = medclip.score(tmp_path / "in", tmp_path / "second", model=pack, **CALL, prompt="a tube", **to)
    assert second.exported is not None
    assert second.exported["posted"] == {"stored": 3, "refused": 0}
    reports = [one for one in server.kept.values() if one["resourceType"] == "DiagnosticReport"]
    assert len(reports) == 6
    replaced = [one["extension"][0]["valueReference"]["identifier"]["value"] for one in reports if "extension" in one]
    assert len(replaced) == 3
    assert set(replaced) == {key for key, one in server.kept.items() if one in reports and "extension" not in one}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sr=https://server.example/fhir"], "a FHIR server does not take sr"),
        (["fhir-r4b=https://a.example/fhir", "fhir-r5=https://a.example/fhir"], "one version of FHIR"),
        (["fhir-r5=https://a.example/fhir", "fhir-r5=https://b.example/fhir"], "one FHIR server"),
        (["fhir-r5=http://a.example/fhir"], "without encryption"),
    ],
)
def test_what_no_server_takes_is_refused_before_anything_is_read(
    tmp_path: Path, pack: Path, words: list[str], sentence: str
) -> None:
    write_png(tmp_path / "in" / "1.png", 1)
    with pytest.raises(MedclipError, match=sentence):
        medclip.score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export=words)
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_away_ends_a_run_before_it_begins(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "FEW_PAUSES_S", (0.01,))
    write_png(tmp_path / "in" / "1.png", 1)
    with pytest.raises(MedclipError) as away:
        medclip.score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export="fhir-r5=http://127.0.0.1:1/fhir")
    assert away.value.reason is Reason.UNREACHABLE
    assert not (tmp_path / "out").exists()
