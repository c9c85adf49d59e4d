"""Vocabularies that users have: files of each form, made by code, and files of none."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.pairs.selection.metadata_files import read_metadata

MESH = """<?xml version="1.0"?><DescriptorRecordSet LanguageCode="eng">
<DescriptorRecord><DescriptorUI>D1</DescriptorUI><DescriptorName><String>Pleural Effusion</String></DescriptorName>
<TreeNumberList><TreeNumber>C08.528.652</TreeNumber></TreeNumberList><ConceptList><Concept><TermList>
<Term><String>Pleural Effusions</String></Term><Term><String>Effusion, Pleural</String></Term>
</TermList></Concept></ConceptList></DescriptorRecord>
<DescriptorRecord><DescriptorName><String>Hospital Economics</String></DescriptorName>
<TreeNumberList><TreeNumber>N03.219</TreeNumber></TreeNumberList></DescriptorRecord></DescriptorRecordSet>"""
RADLEX = """Class ID,Preferred Label,Synonyms,Obsolete
RID1,pleural effusion,hydrothorax|pleural fluid,false
RID2,old word,,true
"""


def _umls(cui: str, term: str, *, language: str = "ENG", suppressed: str = "N") -> str:
    fields = [cui, language, "P", "L", "PF", "S", "Y", "A", "", "", "", "MSH", "PT", "", term, "0", suppressed, ""]
    return "|".join(fields) + "|"


def _snomed(number: str, concept: str, kind: str, term: str, active: str = "1") -> str:
    return "\t".join([number, "20260101", active, "0", concept, "en", kind, term, "0"])


SNOMED = [
    "\t".join(["id", "effectiveTime", "active", "moduleId", "conceptId", "languageCode", "typeId", "term", "case"]),
    _snomed("1", "10", "900000000000003001", "Pleural effusion (disorder)"),
    _snomed("2", "10", "900000000000013009", "Fluid in pleural cavity"),
    _snomed("3", "10", "900000000000013009", "Withdrawn wording", active="0"),
    _snomed("4", "11", "900000000000003001", "Nurse (occupation)"),
]


def test_mesh_has_names_and_terms_of_its_medical_trees(tmp_path: Path) -> None:
    (tmp_path / "desc.xml").write_text(MESH)
    metadata = read_metadata("desc.xml", tmp_path)
    assert metadata.concepts == ("Pleural Effusion",)
    assert {entry.lower() for entry in metadata.entries} >= {"pleural effusion", "pleural effusions"}


def test_radlex_has_preferred_names_and_synonyms_without_obsolete_ones(tmp_path: Path) -> None:
    (tmp_path / "radlex.csv").write_text(RADLEX)
    metadata = read_metadata("radlex.csv", tmp_path)
    assert metadata.concepts == ("pleural effusion",)
    assert set(metadata.entries) == {"pleural effusion", "hydrothorax", "pleural fluid"}


def test_umls_has_english_names_that_are_not_suppressed_of_the_wanted_types(tmp_path: Path) -> None:
    rows = [
        _umls("C1", "Pleural effusion"),
        _umls("C1", "Pleuraerguss", language="GER"),
        _umls("C1", "Fluid on lung", suppressed="O"),
        _umls("C2", "Nurse practitioner"),
    ]
    (tmp_path / "MRCONSO.RRF").write_text("\n".join(rows) + "\n")
    assert read_metadata("MRCONSO.RRF", tmp_path).concepts == ("Pleural effusion", "Nurse practitioner")
    (tmp_path / "MRSTY.RRF").write_text("C1|T047|B2|Disease or Syndrome|A|0|\nC2|T097|A2|Professional Group|A|0|\n")
    assert read_metadata(".", tmp_path).concepts == ("Pleural effusion",)


def test_snomed_has_active_terms_of_medical_kinds(tmp_path: Path) -> None:
    (tmp_path / "descriptions.txt").write_text("\n".join(SNOMED) + "\n")
    metadata = read_metadata("descriptions.txt", tmp_path)
    assert metadata.concepts == ("Pleural effusion",)
    assert {entry.lower() for entry in metadata.entries} == {"pleural effusion", "fluid in pleural cavity"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (MESH.replace("<DescriptorRecordSet", '<!DOCTYPE x [<!ENTITY a "b">]><DescriptorRecordSet'), "TABLE_INVALID"),
        (MESH[:-40], "TABLE_INVALID"),
        ("<html><p>nothing</p></html>", "TABLE_INVALID"),
        ("a\nb\nx\n", "NOTHING_TO_DO"),
        ("", "NOTHING_TO_DO"),
    ],
    ids=["entities", "cut off", "another form", "single letters", "empty"],
)
def test_what_is_no_vocabulary_is_refused_by_its_name(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(MedclipError) as refused:
        read_metadata("file", tmp_path)
    assert (refused.value.reason, Path(str(refused.value.where)).name) == (Reason[reason], "file")


def test_a_vocabulary_is_not_matched_as_the_reference_does(tmp_path: Path) -> None:
    (tmp_path / "radlex.csv").write_text(RADLEX)
    with pytest.raises(MedclipError, match="the reference matches a list of entries"):
        read_metadata("radlex.csv", tmp_path, reference=True)
