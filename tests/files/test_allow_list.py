from __future__ import annotations

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st

from medclip.files.allow_list import ALLOWED, MAX_LENGTH, public_values
from medclip.files.dicom_header import DicomHeader

SECRET = "Miller^Beverly 1969-02-11"
_TEXTS = [field.name for field in dataclasses.fields(DicomHeader) if field.type == "str"]


def test_an_ordinary_header_gives_its_values() -> None:
    header = DicomHeader(
        modality="MR", sop_class="1.2.840.10008.5.1.4.1.1.4", rows=10, columns=20, body_part="BRAIN",
        manufacturer="GE MEDICAL SYSTEMS", device_model="Signa HDxt", image_type=("ORIGINAL", "PRIMARY", "Miller"),
        sequence="SE Miller",
        sex="F", age_years=34.0, echo_time_ms=12.3456, burned_in=True,
    )  # fmt: skip
    found = public_values(header)
    assert (found["manufacturer"], found["device_model"]) == ("GE", "Signa HDxt")
    assert found["modality"] == "MR"
    assert found["image_type"] == ("ORIGINAL", "PRIMARY")
    assert (found["sequence"], found["body_part"], found["echo_time_ms"]) == ("SE", "BRAIN", 12.35)
    assert (found["age_years"], found["sex"], found["burned_in"]) == (34.0, "F", True)
    json.dumps(found)


def test_no_text_of_a_header_lets_a_name_or_date_through() -> None:
    for name in _TEXTS:
        found = public_values(dataclasses.replace(DicomHeader(), **{name: SECRET}))
        assert "Miller" not in json.dumps(found), name
    lists = DicomHeader(image_type=(SECRET,), patient_orientation=(SECRET,))
    assert "Miller" not in json.dumps(public_values(lists))


def test_only_terms_of_a_list_pass_where_people_write_what_they_like() -> None:
    for name in _TEXTS:
        found = public_values(dataclasses.replace(DicomHeader(), **{name: "MILLER BEVERLY"}))
        assert "MILLER" not in json.dumps(found), name
    assert "device_model" not in public_values(DicomHeader(manufacturer="Agfa", device_model="X 19690211"))
    assert not {"manufacturer", "device_model"} & set(public_values(DicomHeader(manufacturer="St Elsewhere General")))


def test_identifiers_are_never_among_the_values() -> None:
    header = DicomHeader(
        study_uid="1.2.3.777", series_uid="1.2.3.777", instance_uid="1.2.3.777", patient_id="777",
        frame_of_reference="1.2.3.777", concatenation="1.2.3.777", sop_class="1.2.3.777", transfer_syntax="1.2.3.777",
        body_part="JOHN DOE 777",
    )  # fmt: skip
    assert "777" not in json.dumps(public_values(header))


@given(st.text(max_size=90))
def test_values_are_short_plain_text_whatever_the_header_holds(text: str) -> None:
    header = dataclasses.replace(DicomHeader(), **dict.fromkeys(_TEXTS, text), image_type=(text,))
    for value in public_values(header).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str):
                assert item
                assert len(item) <= MAX_LENGTH
                assert item.isascii()
                assert item.isprintable()


def test_every_value_has_its_reason() -> None:
    assert all(entry.reason for entry in ALLOWED)
    assert len({entry.name for entry in ALLOWED}) == len(ALLOWED)
