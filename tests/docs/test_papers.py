"""The table of papers claims what tests do: each file of vectors that it names is compared, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/reference/papers.md"
CELLS = re.compile(r"^\|(.+)\|(.+)\|(.+)\|(.+)\|$", re.M)


def rows() -> list[list[str]]:
    cells = [[cell.strip() for cell in match.groups()] for match in CELLS.finditer(PAGE.read_text(encoding="utf-8"))]
    return [row for row in cells if row[0] not in ("paper", "---")]


def named_vectors() -> set[str]:
    return {name for row in rows() for name in re.findall(r"`([a-z0-9_]+)`", row[2])}


def compared_vectors() -> set[str]:
    """Names of files that a test reads out of the folder of golden vectors."""
    read = re.compile(r'"([a-z0-9_]+)\.(?:npz|json|csv)"')
    files = (p for p in (REPOSITORY / "tests").rglob("*.py") if "golden" in p.read_text(encoding="utf-8"))
    return {name for path in files for name in read.findall(path.read_text(encoding="utf-8"))}


def test_a_row_has_a_paper_what_is_here_how_faithful_and_what_was_measured():
    table = rows()
    assert len(table) > 25
    assert all(all(row) for row in table)
    claimed = [row[2] for row in table]
    assert all("vectors" in claim or "own" in claim or "published" in claim or claim == "–" for claim in claimed), (
        claimed
    )


def test_every_file_of_vectors_that_is_named_is_compared_in_a_test():
    assert len(named_vectors()) > 40
    assert named_vectors() <= compared_vectors()


@pytest.mark.shared
def test_every_file_of_vectors_that_a_test_compares_is_named(shared: Path):
    """`model_soups` is compared by a test? Then the page has to say of which paper it is."""
    there = {path.stem for path in (shared / "specs/golden").iterdir()}
    assert not (compared_vectors() & there) - named_vectors()


@pytest.mark.shared
def test_every_specification_has_a_row_or_is_among_what_was_not_built(shared: Path):
    """By the word that a specification is known by; one that no page names is a paper that we are silent about."""
    known_as = {
        "breakhis_vit": "BreakHis",
        "biomedica": "BIOMEDICA",
        "clip_svd": "CLIP-SVD",
        "cxr_fairness": "Fairness of CLIP",
        "ecg_vit": "ViT, BEiT, Swin",
        "medical_mae": "Medical MAE",
        "mv_mlm": "MV-MLM",
        "pathgen": "PathGen-1.6M",
        "unified_notes": "Systems",
        "unimed_clip": "UniMed-CLIP",
        "adr": "(ADR)",
        "clip_in": "CLIP-IN",
        "clip_reident": "CLIP-ReIdent",
        "datacomp": "DataComp",
        "diva": "DIVA",
        "ewa": "(EWA)",
        "hq_clip": "HQ-CLIP",
        "lightclip": "LightCLIP",
        "metaclip": "MetaCLIP's curation",
        "mobileclip": "MobileCLIP",
        "omniview_tuning": "Omniview-Tuning",
        "pyramidclip": "PyramidCLIP",
        "quality_captions": "caption quality",
        "ranking_adapter": "ranking adapter",
        "siglip_and_long_text": "SigLIP",
        "un2clip": "un²CLIP",
        "videomae_v2": "VideoMAE V2",
        "vit_lens": "ViT-Lens",
        "vitamin": "ViTamin",
        "ci2p": "CI2P",
        "deeclip": "DeeCLIP",
        "ed_vit": "ED-ViT",
        "fatformer": "FatFormer",
        "few_shot_survey": "CoOp",
        "llava_sp": "LLaVA-SP",
        "ln_tuning": "LN-tuning",
        "lrp_qvit": "LRP-QViT",
        "model_soups": "Model soups",
        "opcm": "OPCM",
        "pitome": "PiToMe",
        "quantised_inference": "quantised inference",
        "tarsier": "Tarsier",
        "vr_lwf": "VR-LwF",
        "clip_robustness": "robustness of CLIP",
        "co2s": "Co2S",
        "corruptions_medical": "MedMNIST-C",
        "dvt": "(DVT)",
        "ecodepth": "EcoDepth",
        "explainability": "heat maps",
        "fairness_metrics": "fairness by group",
        "iml_vit": "IML-ViT",
        "pace": "PACE",
        "patch_robustness": "patch robustness",
        "perception_clip": "PerceptionCLIP",
        "texture_survey": "texture survey",
        "vit_ensemble_attack": "vit_ensemble_attack",
        "zero_shot_and_retrieval": "zero-shot scoring and retrieval",
    }
    page = PAGE.read_text(encoding="utf-8")
    specs = {
        p.stem
        for room in ("core", "objectives", "adaptation", "evaluation")
        for p in (shared / "specs" / room).glob("*.md")
    }
    assert not specs - known_as.keys()
    assert not [spec for spec in specs if known_as[spec] not in page]
