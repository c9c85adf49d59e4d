"""The rows of modalities, and how tables write one."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow
import pytest

import medclip
from medclip.errors import MedclipError, Reason
from medclip.files.tables.manifest import read_manifest
from medclip.modalities import MODALITIES
from medclip.sample import Modality, modality_of_code, modality_of_name
from medclip.shards.writing.table import modality_named


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("X-ray", "xray"),
        ("x ray", "xray"),
        ("X-RAY", "xray"),
        ("CXR", "xray"),
        ("radiograph", "xray"),
        ("CR", "xray"),
        ("DX", "xray"),
        ("MG", "mammography"),
        ("CT scan", "ct"),
        ("MR", "mri"),
        ("US", "ultrasound"),
        ("WSI", "pathology"),
        ("H&E", "pathology"),
        ("xray", "xray"),
        ("12-lead ECG", "ecg"),
    ],
)
def test_the_fields_own_spellings_are_understood_in_every_table(text: str, modality: str):
    assert modality_of_name(text) == modality_named(text) == modality
    (row,) = read_manifest(pyarrow.table({"file": ["a.png"], "modality": [text]})).rows
    assert row.modality == modality


def test_every_modality_has_its_own_name_and_no_spelling_stands_twice():
    assert {modality_of_name(modality) for modality in Modality} == set(Modality)
    spellings = [s.casefold() for facts in MODALITIES.values() for s in facts.spellings]
    assert len(spellings) == len(set(spellings))
    assert all(modality_of_name(s) is Modality(m) for m, facts in MODALITIES.items() for s in facts.spellings)


def test_dicoms_codes_mean_what_they_mean_in_a_header():
    codes = [(code, Modality(name)) for name, facts in MODALITIES.items() for code in facts.dicom_codes]
    assert len(codes) == len(dict(codes)) == 16
    assert all(modality_of_name(code) is modality_of_code(code) is modality for code, modality in codes)


def test_every_name_that_code_uses_is_a_row():
    assert [str(modality) for modality in Modality] == list(MODALITIES)


def test_a_value_that_is_not_understood_is_shown_and_one_that_may_be_a_name_is_not(tmp_path: Path):
    for value, words in (("PET", "row 1: column 'modality' holds 'PET'"), ("Doe^Jane", r"holds \(not shown\)")):
        (tmp_path / "labels.csv").write_text(f"file,modality\na.png,{value}\n")
        with pytest.raises(MedclipError, match=words) as refused:
            read_manifest(tmp_path / "labels.csv")
        assert refused.value.reason is Reason.TABLE_INVALID
        assert "xray" in refused.value.hint


def test_a_modality_is_named_in_its_row_its_adapter_and_the_table_of_adapters_alone():
    package = Path(medclip.__file__).parent
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    named = {name for name, text in texts.items() if re.search(r"\boct\b", text, re.I)}
    assert named == {"adapters/oct.py", "adapters/registry.py", "modalities.py", "sample.py"}
