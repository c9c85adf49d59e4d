"""A run writes the week of each examination where it is asked to, and no date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip import embed, score
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from tests.kits.scoring import write_dicom, write_png

ONE = Settings(workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 29 February 2024, one that is cut, and an image without a header."""
    root = tmp_path_factory.mktemp("weeks")
    write_dicom(root / "a.dcm", 1)
    cut = write_dicom(root / "cut.dcm", 2, study_uid="1.2.3.4")
    cut.write_bytes(cut.read_bytes()[:-2000])
    write_png(root / "loose.png", 3)
    return root


def weeks_of(files: list[dict[str, object]]) -> dict[object, object]:
    return {row["path"]: json.loads(str(row["headers"] or "{}")).get("week") for row in files}


def test_the_week_is_written_where_it_is_asked_for_also_of_a_file_that_cannot_be_read(
    pack: Path, folder: Path, tmp_path: Path
) -> None:
    run = score(folder, tmp_path / "out", model=pack, weeks=True, settings=ONE)
    assert weeks_of(run.files.to_pylist()) == {"a.dcm": "2024-W09", "cut.dcm": "2024-W09", "loose.png": None}
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"20240229" not in written
    assert b"2024-02-29" not in written


def test_without_being_asked_no_table_holds_a_week(pack: Path, folder: Path, tmp_path: Path) -> None:
    run = score(folder, tmp_path / "out", model=pack, settings=ONE)
    assert set(weeks_of(run.files.to_pylist()).values()) == {None}
    with pytest.raises(MedclipError, match="--weeks") as refused:
        score(folder, tmp_path / "out", model=pack, weeks=True, settings=ONE)
    assert refused.value.reason is Reason.OUTPUT_IN_USE


def test_embeddings_keep_the_week_for_what_is_asked_of_them_later(pack: Path, folder: Path, tmp_path: Path) -> None:
    embedded = embed(folder, tmp_path / "embedded", model=pack, weeks=True, settings=ONE)
    assert weeks_of(embedded.files.to_pylist())["a.dcm"] == "2024-W09"
    scored = score(embedded, tmp_path / "scored", model=pack, settings=ONE)
    assert weeks_of(scored.files.to_pylist())["a.dcm"] == "2024-W09"


def test_device_site_and_protocol_are_written_as_hashes_only_and_only_where_weeks_are(
    pack: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    texts = {"DeviceSerialNumber": "SN-4711", "InstitutionName": "Smith Memorial", "ProtocolName": "Chest of Doe"}
    write_dicom(folder / "a.dcm", 1, **texts)
    write_dicom(folder / "b.dcm", 2, study_uid="1.2.3.4", **(texts | {"DeviceSerialNumber": "SN-4712"}))
    run = score(folder, tmp_path / "weeks", model=pack, weeks=True, settings=ONE)
    one, two = (json.loads(row["headers"]) for row in run.files.to_pylist())
    assert one["device"] != two["device"]
    assert (one["site"], one["protocol"]) == (two["site"], two["protocol"])
    assert all(len(one[name]) == 16 for name in ("device", "site", "protocol"))
    written = b"".join(path.read_bytes() for path in (tmp_path / "weeks").rglob("*") if path.is_file())
    assert not [text for text in texts.values() if text.encode() in written]
    plain = score(folder, tmp_path / "plain", model=pack, settings=ONE)
    assert not {"device", "site", "protocol"} & set(json.loads(plain.files.to_pylist()[0]["headers"]))
