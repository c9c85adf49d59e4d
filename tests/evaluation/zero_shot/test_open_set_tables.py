"""Tables of open sets: the modality that answers state, labels and records of ECGs, the sets' own words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.adapters.base import combined_sha256, source_of
from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.labelled_set import MeasuredFiles, find_set, find_texts
from medclip.evaluation.zero_shot.open_set_tables import (
    TEXT,
    modality_of,
    read_open_table,
    square_film,
    write_records,
)
from medclip.evaluation.zero_shot.suite import SetFile, TextsFile
from medclip.imaging.ecg.formats.readers import read_ecg
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.models.inputs.signal_input import STD_MV
from medclip.settings import Settings
from tests.kits.evaluation import image

KEY = bytes(32)
CLASSES = [{"name": "absent", "prompts": ["no infarction"]}, {"name": "present", "prompts": ["infarction"]}]


def pair(question: str, answer: str, kind: str = "MODALITY") -> dict[str, str]:
    return {"question": question, "answer": answer, "question_type": kind}


@pytest.mark.parametrize(
    ("pairs", "organ", "modality"),
    [
        ([pair("Is this a CT scan?", "Yes")], "HEAD", "ct"),
        ([pair("Is this a CT scan?", "No")], "HEAD", ""),
        ([pair("What modality is shown?", "T2 weighted MRI")], "HEAD", "mri"),
        ([pair("Is this a CT?", "yes"), pair("Which modality?", "MRI")], "HEAD", ""),
        ([pair("Is there a mass seen on CT?", "Yes", "PRES")], "ABD", ""),
        ([], "CHEST", "xray"),
        ([pair("What is this?", "Chest CT")], "CHEST", "ct"),
    ],
)
def test_a_modality_is_what_the_answers_about_an_image_say(
    pairs: list[dict[str, str]], organ: str, modality: str
) -> None:
    assert modality_of(pairs, organ) == modality


def records(folder: Path) -> tuple[Path, np.ndarray]:
    """Write a set in the form of the filtered part of PTB-XL: two records in one archive."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    signal = rng.integers(-3000, 3000, (2, 1000, 12), dtype=np.int16)
    np.savez(folder / "ecg_z.npz", signal=signal, leads=np.array(TWELVE), fs=100, scale=0.001, ecg_id=np.array([7, 8]))
    (folder / "labels.csv").write_text(
        "key,ecg_id,patient_id,strat_fold,superclass,scp_codes\n"
        "7,7,31.0,5,MI|HYP,\"{'IMI': 100.0, 'LVH': 100.0, 'SR': 0.0}\"\n8,8,32.0,5,NORM,\n"
    )
    return folder, signal


def test_records_of_one_archive_become_files_with_labels_and_are_known_by_all_their_files(tmp_path: Path) -> None:
    folder, signal = records(tmp_path / "data" / "z")
    part = SetFile.model_validate(
        {
            "id": "mi",
            "group": "ecg",
            "modality": "ecg",
            "folder": "z",
            "held_out": True,
            "classes": CLASSES,
            "table": {"reader": "ptbxl_z", "label": "label:ecg_superclass:mi"},
            "values": {"1": "present", "0": "absent", "": None},
        }
    )
    labelled = find_set(tmp_path / "data", part, KEY, tmp_path / "records")
    assert labelled is not None
    assert [(row.path.name, row.label) for row in labelled.rows] == [("7.hea", 1), ("8.hea", 0)]
    assert labelled.names_patients
    source = source_of(labelled.rows[0].path, Settings())
    recording = read_ecg(source.paths, source.facts, Settings())
    expected = np.round(signal[0].T * 0.001 * STD_MV, 3)
    np.testing.assert_allclose(np.stack([recording.values_mv[n] for n in range(12)]), expected, atol=1e-6)
    measured = MeasuredFiles({combined_sha256(source): frozenset({"ecg"})})
    assert [row.path.name for row in labelled.held_out(measured).rows] == ["7.hea"]
    assert labelled.digest(tmp_path / "data") == labelled.digest(tmp_path / "data")
    table = read_open_table(folder / "labels.csv", "ptbxl_z", tmp_path / "records")
    assert "label:ecg_superclass:hyp" not in table.names, "amplitudes are scaled away"


def test_the_square_of_a_film_is_its_middle_whatever_its_shape() -> None:
    y, x = np.mgrid[0:300, 0:500]
    film = Image.fromarray(np.where((np.abs(x - 249.5) < 140) & (np.abs(y - 149.5) < 140), 200, 0).astype(np.uint8))
    wide, high = (np.asarray(square_film(of, 60)) for of in (film, film.transpose(Image.Transpose.ROTATE_90)))
    assert wide.shape == high.shape == (60, 60)
    assert (np.abs(wide[3:-3, 3:-3].astype(int) - 200) < 8).all()
    assert np.abs(wide.astype(int) - high).max() <= 1
    assert wide[0].max() < 60


def test_films_of_children_are_read_as_squares_and_a_broken_one_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number, size in enumerate(((300, 200), (200, 300))):
        Image.new("L", size, 90).save(tmp_path / "images" / f"{number}.jpg")
    (tmp_path / "images" / "2.jpg").write_bytes(b"none")
    (tmp_path / "labels.csv").write_text("file,label\nimages/0.jpg,normal\nimages/1.jpg,normal\nimages/2.jpg,normal\n")
    table = read_open_table(tmp_path / "labels.csv", "kermany_cxr", tmp_path / "out")
    *squares, broken = [Path(row["file"]) for row in table.rows()]
    assert broken == tmp_path / "images" / "2.jpg"
    for path in squares:
        with Image.open(path) as square:
            assert square.size == (192, 192)
    assert [path.parent for path in squares] == [tmp_path / "out" / "kermany_cxr"] * 2


def test_another_archive_or_table_than_the_suite_names_is_refused_by_its_name(tmp_path: Path) -> None:
    folder, _ = records(tmp_path / "z")
    (folder / "ecg_z.npz").write_bytes(b"PK nothing")
    with pytest.raises(MedclipError, match="no archive of ECG records") as caught:
        read_open_table(folder / "labels.csv", "ptbxl_z", tmp_path / "records")
    assert (caught.value.reason, caught.value.where) == (Reason.CORRUPT, str(folder / "ecg_z.npz"))
    (folder / "ecg_z.npz").unlink()
    with pytest.raises(MedclipError, match="not here") as caught:
        write_records(folder / "ecg_z.npz", tmp_path / "out")
    assert caught.value.reason is Reason.MISSING_FILE
    with pytest.raises(MedclipError, match="no column 'findings', which the set cdd_cesm has") as caught:
        read_open_table(folder / "labels.csv", "cdd_cesm", tmp_path)
    assert caught.value.reason is Reason.TABLE_INVALID


def test_the_first_of_a_sets_own_words_that_may_be_quoted_is_the_text_of_an_image(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "vqa_rad"
    for n in range(3):
        image(folder / f"{n}.png", n, grey=True)
    (folder / "labels.csv").write_text("file,group,organ\n0.png,a,CHEST\n1.png,b,HEAD\n2.png,c,HEAD\n")
    (folder / "qa.csv").write_text(
        "file,question,answer,question_type\n0.png,Is there a pneumothorax?,No,PRES\n"
        "1.png,Is this an MRI?,Yes,MODALITY\n2.png,Is there a large mass?,Yes,PRES\n"
    )
    part = TextsFile.model_validate({"id": "vqa_rad", "table": {"reader": "vqa_rad", "patient": "group"}})
    texts = find_texts(tmp_path / "data", part, KEY)
    assert texts is not None
    assert [(row.path.name, str(row.modality)) for row in texts.rows] == [("0.png", "xray"), ("1.png", "mri")]
    assert texts.rows[0].text == "There is no pneumothorax."
    assert len(texts.held_out(MeasuredFiles({})).rows) == 2, "the suite does not ask for held-out files"
    assert TEXT in read_open_table(folder / "labels.csv", "vqa_rad", tmp_path).names


def test_a_file_is_measured_in_the_renderings_that_its_line_names(tmp_path: Path) -> None:
    from medclip.models.packs.manifest import file_sha256

    paths = [image(tmp_path / f"{n}.png", n) for n in range(3)]
    hashes = [file_sha256(path) for path in paths]
    measured = MeasuredFiles({hashes[0]: frozenset({"generic", "xray"}), hashes[1]: frozenset()})
    assert [measured.has(path, "generic") for path in paths] == [True, True, False]
    assert [measured.has(path, "ct") for path in paths] == [False, True, False]
