"""How application entities are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.dimse import address
from medclip.files.dimse.address import Entity, entity_of, is_dimse, own_title, parse_senders, protocol


def test_an_entity_is_read_as_it_is_written_also_from_a_path() -> None:
    pacs = Entity("PACS_1", "10.0.0.5", 104)
    assert entity_of("dicom://PACS_1@10.0.0.5:104") == entity_of(Path("dicom://PACS_1@10.0.0.5:104")) == pacs
    assert entity_of(str(pacs)) == pacs
    assert entity_of("dicom://MEDCLIP@:11112") == Entity("MEDCLIP", "", 11112)
    assert str(entity_of("dicom://A@[::1]:11112")) == "dicom://A@[::1]:11112"
    assert not is_dimse("dicomweb://localhost")
    assert not is_dimse(Path("dicom"))


@pytest.mark.parametrize(
    "text",
    [
        *("dicom://", "dicom://10.0.0.5:104", "dicom://A@h", "dicom://A@h:x", "dicom://A@h:99999", "dicom://A@h:0"),
        *("dicom://A:secret@h:104", "dicom://A@h:104/path", "dicom://A@h:104?q=1", f"dicom://{'A' * 17}@h:104"),
        *("dicom://A%5CB@h:104", "dicom://%20@h:104", "dicom://A%0AB@h:104", "dicom://A@[h:104"),
    ],
)
def test_what_names_none_is_refused(text: str) -> None:
    with pytest.raises(MedclipError) as refused:
        entity_of(text)
    assert refused.value.reason is Reason.WRONG_USE
    assert "dicom://AET@HOST:PORT" in refused.value.hint


def test_a_path_that_names_none_is_shown_as_it_was_written() -> None:
    with pytest.raises(MedclipError) as refused:
        entity_of(Path("dicom://MEDCLIP:11112"))
    assert "dicom://MEDCLIP:11112" in str(refused.value)


def test_senders_are_titles_with_or_without_an_address() -> None:
    senders = parse_senders(("CT1", "PACS@10.0.0.5:104", "CT1"))
    assert senders == {"CT1": None, "PACS": Entity("PACS", "10.0.0.5", 104)}
    for text in ("", "A@", "A@:104", "A@h", "A\\B", "B" * 17):
        with pytest.raises(MedclipError):
            parse_senders((text,))


def test_the_own_title_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(address.TITLE_VARIABLE, raising=False)
    assert own_title() == "MEDCLIP"
    monkeypatch.setenv(address.TITLE_VARIABLE, " NIGHT ")
    assert own_title() == "NIGHT"
    monkeypatch.setenv(address.TITLE_VARIABLE, "A" * 17)
    with pytest.raises(MedclipError):
        own_title()


def test_a_missing_package_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynetdicom", None)
    with pytest.raises(MedclipError) as missing:
        protocol()
    assert missing.value.reason is Reason.MISSING_CODEC
    assert address.PIP_LINE in missing.value.hint
