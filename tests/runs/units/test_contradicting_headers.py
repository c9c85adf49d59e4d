"""Headers that contradict refuse with one sentence; so do masks and drawings; a person's table overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.api.score import score
from medclip.dicom.header.read import DicomHeader
from medclip.errors import Reason
from medclip.imaging.intensity import is_flat
from medclip.runs.units.problems import header_contradiction
from tests.kits.files import write_image
from tests.kits.scoring import rows, texture, write_dicom

CT, CR, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (DicomHeader(modality="CT", sop_class=CR), "its Modality is CT, its SOP class that of a projection X-ray"),
        (DicomHeader(modality="US", sop_class=CT), "its Modality is US, its SOP class that of a CT"),
        (DicomHeader(modality="CT", sop_class=CT, image_type=("ORIGINAL", "LOCALIZER")), "LOCALIZER: a projection"),
    ],
)
def test_a_header_that_says_two_things_is_refused(header: DicomHeader, words: str) -> None:
    problem = header_contradiction(header)
    assert problem is not None
    assert problem.reason is Reason.MODALITY_UNCERTAIN
    assert words in problem.sentence
    assert problem.sentence.endswith("name its modality in a table to score it all the same.")


@pytest.mark.parametrize(
    "header",
    [
        DicomHeader(),
        DicomHeader(modality="MG", sop_class=CR),
        DicomHeader(modality="OT", sop_class=CT),
        DicomHeader(modality="CT", sop_class=SC),
        DicomHeader(modality="MR", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        DicomHeader(modality="CT", sop_class=CT, image_type=("DERIVED", "SECONDARY", "AXIAL")),
    ],
)
def test_one_that_says_one_thing_or_nothing_is_not(header: DicomHeader) -> None:
    assert header_contradiction(header) is None


def _disc() -> np.ndarray:
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    return np.where(np.hypot(x, y) < 0.6, 180, 20).astype(np.uint8)


def test_masks_and_drawings_are_flat_and_images_are_not() -> None:
    assert is_flat(_disc()[:, :, None])
    assert is_flat(np.repeat(_disc()[:, :, None], 3, 2))
    assert not is_flat(texture(3)[:, :, None])
    background = np.zeros((90, 90), np.uint8)
    background[:40, :40] = texture(3)[:40, :40]  # four fifths are black, as in mammograms
    assert not is_flat(background[:, :, None])


def _status(root: Path, pack: Path, out: Path, **call: Any) -> dict[str, Any]:
    (row,) = rows(score(root, out, model=pack, **call)).values()
    return row


def test_a_film_of_another_part_by_its_description_is_refused_without_a_word_of_it(pack: Path, tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "in" / "1.dcm", 1, BodyPartExamined="CHEST", SeriesDescription="Elbow of M. Curie")
    row = _status(tmp_path / "in", pack, tmp_path / "out", task="chest_xray_findings")
    assert (row["status"], row["reason"]) == ("skipped", "no_task")
    assert "states the body part CHEST and by its description ELBOW" in row["message"]
    assert "Curie" not in row["message"]
    (tmp_path / "table.csv").write_text("file,modality\n1.dcm,xray\n")
    by_hand = _status(file.parent, pack, tmp_path / "named", task="chest_xray_findings", table=tmp_path / "table.csv")
    assert by_hand["status"] == "scored"


def test_a_mask_that_an_option_calls_ct_is_refused_and_one_that_a_table_names_is_not(
    pack: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "in" / "a.png", _disc())
    row = _status(tmp_path / "in", pack, tmp_path / "out", task="modality", modality="ct")
    assert (row["status"], row["reason"]) == ("skipped", "modality_uncertain")
    assert "a mask, a label map or a drawing" in row["message"]
    (tmp_path / "table.csv").write_text("file,modality\na.png,ct\n")
    by_hand = _status(tmp_path / "in", pack, tmp_path / "named", task="modality", table=tmp_path / "table.csv")
    assert by_hand["status"] == "scored"


def test_a_capture_that_looks_like_no_ct_is_refused(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1, modality="CT")
    assert _status(tmp_path / "in", pack, tmp_path / "like", task="modality")["status"] == "scored"
    monkeypatch.setattr("medclip.runs.units.chunk.typical", lambda model, features_ND, name: np.zeros(len(features_ND)))
    row = _status(tmp_path / "in", pack, tmp_path / "unlike", task="modality")
    assert row["reason"] == "modality_uncertain"
    assert "secondary capture" in row["message"]
