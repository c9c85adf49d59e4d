from __future__ import annotations

import pytest

from medclip.pairs.words.patch_caption_check import (
    KINDS,
    NEVER,
    AllowedClaims,
    Room,
    check_patch_caption,
    claims_of,
    words_of,
)

ROOM = Room(30, lambda text: len(text.split()) + 2)
SEEN = AllowedClaims(frozenset({"structure", "cell", "nucleus", "process"}))
MEASURED = AllowedClaims(frozenset({"nucleus"}))


def kinds_of(text: str) -> set[str]:
    return {claim.kind for claim in claims_of(text)}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("an adenocarcinoma", "diagnosis"),
        ("hepatoblastoma cells", "diagnosis"),
        ("a leiomyoma", "diagnosis"),
        ("Gleason pattern 3", "diagnosis"),
        ("no necrosis", "process"),
        ("irregular glands", "structure"),
        ("plasma cells", "cell"),
        ("pleomorphic nuclei", "nucleus"),
        ("Ki-67 is high", "marker"),
        ("a 63-year-old woman", "patient"),
        ("According to the report", "source"),
        ("As an AI", "source"),
    ],
)
def test_each_kind_of_claim_is_seen(text, kind):
    assert kind in kinds_of(text)


def test_plain_words_claim_nothing():
    assert claims_of("Histology patch of colon tissue, densely packed, 33 µm² on 12 % of the area.") == ()
    assert kinds_of("fibrous stroma") == {"structure"}


def test_a_claim_that_is_denied_is_a_claim():
    assert MEASURED.refused("Crowded nuclei without mitoses.")[0].stem == "mitos"


def test_no_kind_shares_a_stem_with_another():
    stems = [stem for kind in KINDS.values() for stem in kind]
    assert len(stems) == len(set(stems))


def test_findings_of_the_slides_report_may_be_claimed_but_never_a_patient_or_a_marker():
    allowed = SEEN.with_texts(["mucinous carcinoma of a 70-year-old patient, HER2 positive"])
    assert not allowed.refused("Carcinoma cells float in mucin.")
    assert allowed.refused("Lymphoma cells.")
    assert {claim.kind for claim in allowed.refused("HER2 and a patient")} == {"marker", "patient"} <= NEVER
    assert SEEN.refused("Carcinoma cells float in mucin.")


@pytest.mark.parametrize(
    "finding",
    [
        "no evidence of carcinoma",
        "carcinoma is not identified",
        "margins free of carcinoma",
        "negative for dysplasia, carcinoma and lymphoma",
        "suspicious for carcinoma",
        "carcinoma?",
    ],
)
def test_a_diagnosis_that_a_finding_denies_or_leaves_open_may_not_be_claimed(finding):
    assert SEEN.with_texts([finding]).refused("Carcinoma cells float in mucin.")
    assert not SEEN.with_texts([f"{finding}; carcinoma"]).refused("Carcinoma cells float in mucin.")


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("", "empty"),
        ("Round nuclei.", "too_short"),
        (" ".join(["nuclei"] * 29), "too_long"),
        ("Densely packed ядра in rows.", "not_english"),
        ("There may be round nuclei here.", "hedge"),
        ("Round nuclei in an adenocarcinoma of glands.", "claim"),
        ("The report says that nuclei are round.", "claim"),
    ],
)
def test_a_caption_is_refused_with_its_reason(caption, kind):
    problem = check_patch_caption(caption, ROOM, SEEN)
    assert problem is not None
    assert problem[0] == kind
    assert problem[1]


def test_a_caption_within_its_agents_list_is_used_and_the_list_is_the_agents():
    caption = "Glands lined by tall cells with round nuclei."
    assert check_patch_caption(caption, ROOM, SEEN) is None
    problem = check_patch_caption(caption, ROOM, MEASURED)
    assert problem is not None
    assert "glands (structure)" in problem[1]


def test_length_counts_tokens_and_not_words():
    letters = Room(20, len)
    assert check_patch_caption("Nuclei are round and dark here.", letters, SEEN)[0] == "too_long"
    assert check_patch_caption("Nuclei are round and dark here.", ROOM, SEEN) is None


def test_captions_that_differ_by_case_and_points_only_are_the_same():
    assert words_of("Round nuclei, 33 µm².") == words_of("round  nuclei 33 µm²")
    assert words_of("33 nuclei") != words_of("34 nuclei")
