"""What headers say of text in the pixels."""

from __future__ import annotations

from pathlib import Path

from medclip.auditing.checks.leakage.file_hashes import burned_in_row, flags_of_files, flags_of_headers
from medclip.settings import Settings
from tests.kits.files import ramp, write_dicom, write_image


def test_flags_come_from_the_headers_of_a_score_table():
    headers = ['{"burned_in": true}', '{"burned_in": false, "sex": "F"}', '{"sex": "F"}', None, ""]
    assert flags_of_headers(headers) == (True, False, None, None, None)


def test_flags_come_from_the_files_themselves(tmp_path: Path):
    said = [
        write_dicom(tmp_path / f"{word}.dcm", ramp(), BurnedInAnnotation=word or None) for word in ("YES", "NO", "")
    ]
    paths = [*said, write_image(tmp_path / "a.png", ramp()), None, tmp_path / "gone.dcm", str(said[0])]
    assert flags_of_files(paths, Settings(workers=1)) == (True, False, None, None, None, None, True)


def test_images_without_a_header_are_said_not_to_be_tested():
    row = burned_in_row((True, False, None), 3)
    assert (row["found"], row["tested"], row["severity"]) == (1, 2, "note")
    assert "1 of 3 images are without such a header" in row["sentence"]
    clean = burned_in_row((False, False), 2)
    assert (clean["found"], clean["tested"]) == (0, 2)
    assert clean["sentence"].startswith("None of the 2 headers")
    for flags, why in (((None, None), "letters in pixels are not looked for"), ((), "were not read")):
        row = burned_in_row(flags, 2)
        assert (row["found"], row["tested"]) == (0, 0)
        assert row["sentence"].startswith("Not tested")
        assert why in row["sentence"]
