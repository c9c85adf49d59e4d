"""How a PACS and a selection of its studies are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import DicomwebServer, address_of, is_dicomweb, parse_query


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("dicomweb://127.0.0.1:8042/dicom-web", "http://127.0.0.1:8042/dicom-web"),
        ("dicomwebs://pacs.example/a/b/", "https://pacs.example/a/b"),
        (Path("dicomweb://host:80/x"), "http://host:80/x"),  # Path makes one slash of two
    ],
)
def test_an_address_is_the_url_that_is_asked(named: str | Path, url: str) -> None:
    assert is_dicomweb(named)
    assert str(address_of(named)) == url


@pytest.mark.parametrize("named", ["dicomweb://", "dicomweb:///x", "dicomweb:/"])
def test_an_address_without_a_host_is_refused(named: str) -> None:
    with pytest.raises(MedclipError) as refused:
        address_of(named)
    assert refused.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("secret", ["user:word@host/x", "word@host/x", "host/x?key=word", "host/x#word"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(MedclipError) as refused:
        address_of(f"dicomwebs://{secret}")
    assert "word" not in str(refused.value).replace("password", "").replace("PASSWORD", "")


def test_a_path_is_no_address() -> None:
    assert not is_dicomweb("studies/dicomweb")
    assert not is_dicomweb(["dicomweb://host/x"])


def test_a_query_is_keywords_or_tags_and_a_comma_in_a_value_stays() -> None:
    assert parse_query("StudyDate=20240101-20240131, 00080061=CR") == {
        "00080061": "CR",
        "StudyDate": "20240101-20240131",
    }
    assert parse_query("PatientName=A,B,ModalitiesInStudy=CR")["PatientName"] == "A,B"
    assert parse_query({"Modality": "MG"}) == parse_query("Modality=MG")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("ModalitysInStudy=CR", "ModalitiesInStudy"),
        ("CR", "KEY=VALUE"),
        ("StudyDate=", "empty"),
        ("StudyDate=1,StudyDate=2", "twice"),
        ("limit=5", "no DICOM attribute"),
    ],
)
def test_a_query_with_a_slip_is_refused_with_what_may_be_meant(query: str, sentence: str) -> None:
    with pytest.raises(MedclipError) as refused:
        parse_query(query)
    assert refused.value.reason is Reason.WRONG_USE
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("named", "is_open"),
    [
        ("dicomweb://127.0.0.1:1/x", False),
        ("dicomweb://localhost/x", False),
        ("dicomwebs://pacs.example/x", False),
        ("dicomweb://pacs.example/x", True),
        ("dicomweb://10.0.0.3/x", True),
    ],
)
def test_only_plain_http_to_another_machine_can_be_read_on_the_way(named: str, is_open: bool) -> None:
    assert DicomwebServer(address_of(named)).is_open is is_open
