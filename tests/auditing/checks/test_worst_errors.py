"""The images of the worst errors: whose they are, in which order, and where they do not go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import medclip
from medclip.auditing.checks.worst_errors import errors_of, small_image_of, worst
from medclip.cli.main import main
from medclip.errors import MedclipError
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.statistics.cohort import Label
from tests.kits.files import write_dicom


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 1)), max_size=40))
def test_the_worst_of_each_patient_come_first_and_three_at_most(rows: list[tuple[int, float]]):
    patients_N = np.array([patient for patient, _ in rows], np.int32)
    apart_N = np.array([apart for _, apart in rows], np.float64)
    shown = worst(np.arange(len(rows)), apart_N, patients_N)
    largest = [
        max(abs(a) for a, p in zip(apart_N, patients_N, strict=True) if p == q) for q in set(patients_N.tolist())
    ]
    assert [abs(apart_N[n]) for n in shown] == sorted(largest, reverse=True)[:3]
    assert len({int(patients_N[n]) for n in shown}) == len(shown)


def test_a_label_that_means_healthy_has_its_errors_swapped():
    label = Label("x", np.array([0.1, 0.9, 0.1, 0.9]), np.array([1.0, 0.0, 0.0, 1.0]))
    healthy = Label("No finding", label.score_N, label.truth_N, no_finding=True)
    assert {kind: wrong.tolist() for kind, wrong in errors_of(label, 0.5).items()} == {
        "missed": [True, False, False, False],
        "false alarm": [False, True, False, False],
    }
    assert errors_of(healthy, 0.5)["missed"].tolist() == [False, True, False, False]


def test_an_image_whose_header_says_that_text_is_burned_in_is_withheld(tmp_path: Path):
    for name, burned_in in (("yes", "YES"), ("no", "NO")):
        write_dicom(
            tmp_path / f"{name}.dcm", np.arange(1600, dtype=np.uint16).reshape(40, 40), BurnedInAnnotation=burned_in
        )
    assert small_image_of(tmp_path / "yes.dcm", Modality.XRAY, Settings()) == b""
    assert small_image_of(tmp_path / "no.dcm", Modality.XRAY, Settings())[:2] == b"\xff\xd8"


def films(folder: Path) -> Path:
    """Write films of 80 patients; those of group C are too few to be shown."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(80):
        name = f"secret{n}.png"
        Image.fromarray(rng.integers(0, 255, (48, 48), np.uint8)).save(folder / name)
        ill = n % 2
        is_wrong = n // 4 % 2
        site = "C" if n < 4 else "AB"[n // 2 % 2]
        rows.append([name, f"patient{n}", site, ill, abs(ill - (0.9 if is_wrong else 0.1))])
    pd.DataFrame(rows, columns=["file", "patient", "site", "flu", "flu_score"]).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_the_page_shows_errors_of_shown_groups_and_names_nobody(tmp_path: Path):
    table, out = films(tmp_path), tmp_path / "out"
    asked = ["audit", str(table), "--by", "site", "--images", str(tmp_path), "--modality", "xray"]
    asked += ["--num-resamples", "100", "--num-permutations", "100", "--threshold", "0.5", "--out"]
    assert main([*asked, str(out), "--show-images"]) == 0
    page = (out / "report.html").read_text()
    images = page[page.index("deep errors") : page.index("</details>", page.index("deep errors"))]
    assert images.count("data:image/jpeg") == 2 * 2 * 3  # two groups, two kinds of error, three patients
    assert "<strong>C (site)" not in images
    assert "small images, which were asked for" in page
    for path in [*out.glob("*.json"), *out.glob("*.csv"), *out.glob("*.md")]:
        assert "base64" not in path.read_text()
    assert "secret" not in page
    assert "patient7" not in page
    assert main([*asked, str(tmp_path / "plain")]) == 0
    assert "it holds no image" in (tmp_path / "plain" / "report.html").read_text()


def test_images_are_asked_for_with_their_folder():
    with pytest.raises(MedclipError, match="no images that could be shown"):
        medclip.audit("t.csv", by=["site"], show_images=True)
