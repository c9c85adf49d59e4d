"""Reports of mammograms: true, once, in order, and of the scale that the field's phrase banks have."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.pairs.words.breast_check import breast_facts, check_report
from medclip.pairs.words.breast_report import clear_sentences, distinct_reports, draw_report
from medclip.text.breast_record import (
    ASYMMETRIES,
    DEPTHS,
    DISTRIBUTIONS,
    FORMS,
    MARGINS,
    MASS_DENSITIES,
    QUADRANTS,
    SHAPES,
    BreastFinding,
    BreastRecord,
    finding_kinds,
    record_of,
)
from medclip.text.free_text import sentences
from medclip.text.mentions import asserted, contradicts

SCALE = {
    "mass": (400, 250),
    "calcification": (1440, 1045),
    "architectural_distortion": (400, 5),
    "asymmetry": (280, 5),
    "focal_asymmetry": (240, 5),
    "global_asymmetry": (160, 5),
    "lymph_node": (21, 5),
    "skin_thickening": (66, 5),
    "skin_retraction": (33, 5),
    "nipple_retraction": (5, 5),
}
"""Positive and negative variants for each side in Mammo-CLIP's phrase banks (spec of MV-MLM, section 4)."""
OTHER = {"L": "right", "R": "left"}


def _findings(kind: str) -> st.SearchStrategy[BreastFinding]:
    common: dict[str, Any] = {"quadrant": st.sampled_from(["", *QUADRANTS]), "depth": st.sampled_from(["", *DEPTHS])}
    if kind == "mass":
        common |= {
            "shape": st.sampled_from(["", *SHAPES]),
            "margins": st.lists(st.sampled_from(MARGINS), unique=True, max_size=3).map(tuple),
            "density": st.sampled_from(["", *MASS_DENSITIES]),
            "size_mm": st.sampled_from([None, 3.0, 8.0, 12.5, 18.0]),
        }
    if kind == "calcification":
        common |= {
            "forms": st.lists(st.sampled_from(FORMS), unique=True, max_size=3).map(tuple),
            "distribution": st.sampled_from(["", *DISTRIBUTIONS]),
            "suspicious": st.sampled_from([None, True, False]),
        }
    if kind == "lymph_node":
        common |= {"suspicious": st.sampled_from([None, True, False])}
    return st.builds(BreastFinding, kind=st.just(kind), **common)


@st.composite
def records(draw: st.DrawFn) -> BreastRecord:
    kinds = draw(st.lists(st.sampled_from(finding_kinds()), unique=True, max_size=4))
    findings = [draw(_findings(kind)) for kind in kinds]
    absent = draw(st.lists(st.sampled_from(finding_kinds()), unique=True)) if draw(st.booleans()) else finding_kinds()
    return BreastRecord(
        side=draw(st.sampled_from(["", "L", "R"])),
        view=draw(st.sampled_from(["", "CC", "MLO"])),
        view_kind=draw(st.sampled_from(["standard", "subtracted"])),
        composition=draw(st.sampled_from(["", "heterogeneously_dense", "almost_entirely_fatty"])),
        birads=draw(st.sampled_from([None, *range(7)])),
        findings=tuple(findings),
        absent=tuple(kind for kind in absent if kind not in kinds),
        pathology=draw(st.sampled_from(["", "normal", "benign", "malignant"])),
        implant=draw(st.sampled_from([None, True, False])),
    )


@given(records(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_the_same_seed_writes_the_same_report_and_the_checker_passes_it(record: BreastRecord, seed: int):
    texts = [draw_report(record, np.random.default_rng(seed)) for _ in range(2)]
    assert texts[0] == texts[1]
    for text in (texts[0], draw_report(record, None)):
        assert not text or check_report(text, record) == (), text


@given(records(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_every_finding_is_stated_once_and_none_is_denied_beside_it(record: BreastRecord, seed: int):
    text = draw_report(record, np.random.default_rng(seed))
    claims = [asserted("mammography_findings", s) for s in sentences(text, min_words=1)]
    affirmed = [kind for claim in claims for kind, value in claim.items() if value]
    denied = [kind for claim in claims for kind, value in claim.items() if not value]
    assert sorted(affirmed) == sorted(f.kind for f in record.findings)
    assert not set(affirmed) & set(denied)
    assert len(denied) == len(set(denied)), "nothing is denied twice"
    assert set(denied) <= set(record.absent)
    if record.is_clear:
        assert not denied, "a clear breast has no list of negatives"
    if set(affirmed) & set(ASYMMETRIES):
        assert not set(denied) & set(ASYMMETRIES)
    label = {f.kind: 1 for f in record.findings} | dict.fromkeys(record.absent, 0)
    assert not contradicts(text, {"mammography_findings": label})


@given(records(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_no_report_names_the_other_side_or_another_quadrant(record: BreastRecord, seed: int):
    text = draw_report(record, np.random.default_rng(seed)).lower()
    for side, other in OTHER.items():
        if record.side == side:
            assert not re.search(rf"\b{other}\b", text)
        elif not record.side:
            assert not re.search(r"\b(?:left|right)\b", text)
    quadrants = {f.quadrant for f in record.findings}
    for quadrant in QUADRANTS[:4]:
        assert (quadrant in text) == (quadrant in quadrants)


class _InTurn:
    """Stands for a generator: its draws of one of n are written down, and go through all that there are."""

    def __init__(self) -> None:
        self.drawn: list[list[int]] = []
        self._next = 0

    def integers(self, n: int) -> int:
        if self._next == len(self.drawn):
            self.drawn.append([0, n])
        self._next += 1
        return self.drawn[self._next - 1][0]

    def random(self) -> float:
        return 1 - 1e-9

    def permutation(self, n: int) -> range:
        return range(n)

    def turn(self) -> bool:
        """Go on to the next row of draws; False after the last."""
        self._next = 0
        while self.drawn and self.drawn[-1][0] + 1 == self.drawn[-1][1]:
            self.drawn.pop()
        if self.drawn:
            self.drawn[-1][0] += 1
        return bool(self.drawn)


def every_report(record: BreastRecord) -> set[str]:
    chance: Any = _InTurn()
    texts = {draw_report(record, chance)}
    while chance.turn():
        texts.add(draw_report(record, chance))
    return texts


@pytest.mark.parametrize("kind", finding_kinds())
@pytest.mark.parametrize("side", ["L", "R"])
def test_there_are_as_many_wordings_as_in_the_banks_of_the_field(kind: str, side: str):
    suspicious = True if kind == "calcification" else None
    stated = every_report(BreastRecord(side, findings=(BreastFinding(kind, suspicious=suspicious),)))
    denied = every_report(BreastRecord(side, absent=(kind,)))
    assert len(stated) >= SCALE[kind][0]
    assert len(denied) >= SCALE[kind][1]
    assert not stated & denied
    for sentence in (*stated, *denied):
        assert asserted("mammography_findings", sentence) == {kind: sentence in stated}, sentence
        assert sentence[0].isupper()
        assert "  " not in sentence
        assert " ." not in sentence


def test_a_finding_with_all_its_details_has_hundreds_of_wordings_and_each_has_them_all():
    mass = BreastFinding("mass", "upper outer", "posterior", "irregular", ("spiculated",), "high density", 12)
    wordings = every_report(BreastRecord("R", findings=(mass,)))
    assert len(wordings) >= 400
    words = ("upper outer", "posterior", "irregular", "spiculated", "high-density", "12 mm", "right", "mass")
    assert all(word in wording for wording in wordings for word in words)


def test_no_finding_has_a_sentence_of_its_own_that_fits_the_assessment():
    clear = record_of({"findings": []}, "L")
    assert clear.is_clear
    assert len(set(clear_sentences(clear))) >= 4
    rng = np.random.default_rng(0)
    assert all("suspicious" in draw_report(record_of({"findings": [], "birads": 2}, "L"), rng) for _ in range(30))


def test_shuffling_changes_the_order_that_is_returned_and_the_first_report_has_that_of_the_record():
    record = record_of({"density": "B", "birads": 4, "findings": [{"type": "mass"}, {"type": "skin thickening"}]}, "L")
    firsts = {sentences(draw_report(record, np.random.default_rng(seed)))[0][:9] for seed in range(60)}
    assert len(firsts) > 5
    orders = set()
    for seed in range(60):
        text = draw_report(record, np.random.default_rng(seed)).lower()
        orders.add(text.index("mass") < re.search("skin|thick", text).start())  # pyright: ignore[reportOptionalMemberAccess]
    assert orders == {True, False}
    first = draw_report(record, None)
    assert first.index("fibroglandular") < first.index("mass") < first.index("skin thickening") < first.index("BI-RADS")


def test_a_report_does_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np; from medclip.text.breast_record import record_of;"
        "from medclip.pairs.words.breast_report import draw_report;"
        "r = record_of({'density': 'C', 'birads': 3, 'findings': [{'type': 'mass'}]}, 'L');"
        "print([draw_report(r, np.random.default_rng(s)) for s in range(5)], draw_report(r, None))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": seed, **_environment()},
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(texts) == 1


def _environment() -> dict[str, str]:
    import os

    return {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}


def test_a_record_with_few_words_has_fewer_reports_than_were_asked():
    rng = np.random.default_rng(0)
    assert len(distinct_reports(BreastRecord(composition="extremely_dense"), 50, rng)) == 6
    assert distinct_reports(BreastRecord(side="L"), 5, rng) == ()
    assert len(distinct_reports(record_of({"findings": [{"type": "mass"}]}, "L"), 50, rng)) == 50


def test_findings_of_the_other_side_are_left_out():
    findings = [{"type": "mass", "side": "R"}, {"type": "calcification", "side": "left"}]
    record = record_of({"findings": findings}, "L")
    assert [f.kind for f in record.findings] == ["calcification"]
    assert "mass" in record.absent


def test_a_finding_of_one_side_is_open_where_the_side_of_the_image_is_not_known():
    record = record_of({"findings": [{"type": "mass", "side": "R"}, {"type": "calcification"}]}, "")
    assert [f.kind for f in record.findings] == ["calcification"]
    assert "mass" not in record.absent
    assert "skin_thickening" in record.absent
    assert not record_of({"findings": [{"type": "mass", "side": "R"}]}, "").is_clear


@pytest.mark.parametrize(
    "values",
    [
        {"findings": [{"type": "tumour"}]},
        {"findings": [{"type": "mass", "quadrant": "upper left"}]},
        {"findings": [{"type": "mass", "size_mm": -3}]},
        {"findings": [{"type": "mass", "margin": "fuzzy"}]},
        {"findings": [{"type": "mass", "size_mm": "large"}]},
        {"findings": [], "absent": ["mas"]},
        {"pathology": "Malignent"},
        {"view_kind": "low energy"},
        {"birads": 7},
    ],
)
def test_words_that_are_not_of_the_lists_are_refused(values: dict[str, Any]):
    with pytest.raises(MedclipError):
        record_of(values, "L")


RECORD = record_of(
    {
        "density": "B",
        "birads": 4,
        "view": "CC",
        "findings": [
            {"type": "mass", "quadrant": "upper outer", "shape": "irregular", "margin": "spiculated", "size_mm": 12},
            {"type": "calcification", "quadrant": "lower inner", "morphology": "vascular"},
        ],
        "absent": ["skin thickening"],
    },
    "L",
)
BOTH = (
    "An irregular spiculated 12 mm mass in the upper outer left breast. "
    "Vascular calcifications in the lower inner left breast."
)


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (BOTH.replace("left", "right"), "side"),
        (BOTH.replace("upper outer", "upper inner"), "place"),
        (BOTH.replace("12 mm", "21 mm"), "size"),
        (BOTH.replace("spiculated", "circumscribed"), "look"),
        (BOTH.replace("An irregular", "An oval"), "look"),
        (BOTH.replace("An irregular", "An irregular vascular"), "look"),
        (BOTH.replace("An irregular spiculated 12 mm mass", "An irregular mass without spiculated margins"), "look"),
        (BOTH.replace("An irregular", "A benign irregular"), "look"),
        (BOTH.replace("An irregular", "A suspicious irregular"), "look"),
        (BOTH.replace("Vascular", "Suspicious vascular"), "look"),
        (BOTH.replace("An irregular", "A large irregular"), "unknown word"),
        (BOTH.replace("upper outer", "lower inner", 1), "look"),
        (BOTH + " Skin retraction is seen on the left.", "finding"),
        (BOTH + " No skin retraction.", "finding"),
        (BOTH + " No mass is seen.", "finding"),
        (BOTH + " A mass is seen.", "twice"),
        (BOTH + " The breasts are extremely dense.", "composition"),
        (BOTH + " BI-RADS 5.", "assessment"),
        (BOTH + " Final diagnosis: malignancy.", "outcome"),
        (BOTH + " A breast implant is present on the left.", "implant"),
        (BOTH + " Mammogram of the left breast, MLO view.", "view"),
        (BOTH + " Metastasis to the liver.", "form"),
        (BOTH.replace("An irregular", "Possibly an irregular"), "hedge"),
        (BOTH.replace("mass in", "mass with oedema in"), "unknown word"),
        ("An irregular spiculated mass in the upper outer left breast.", "missing"),
        (BOTH.replace("An", "Three"), "unknown word"),
        (BOTH.replace("mass in", "mass or mass lesion in"), "unknown word"),
        ("", "form"),
    ],
)
def test_a_lie_of_a_writer_is_found_and_its_kind_is_named(report: str, kind: str):
    assert check_report(BOTH, RECORD) == ()
    assert kind in {problem.split(":")[0] for problem in check_report(report, RECORD)}


def test_two_sentences_of_one_of_two_masses_leave_the_other_out():
    masses = [{"type": "mass", "shape": "oval"}, {"type": "mass", "shape": "irregular", "size_mm": 9}]
    record = record_of({"findings": masses}, "L")
    assert check_report("An oval mass in the left breast. A 9 mm mass in the left breast.", record) == ()
    assert check_report("An oval mass in the left breast. A mass in the left breast.", record) == ()
    (problem,) = check_report("An oval mass in the left breast. An oval mass is seen on the left.", record)
    assert problem.startswith("missing")


def test_what_is_denied_beside_a_finding_is_not_denied_of_it():
    record = record_of({"findings": [{"type": "mass", "shape": "oval"}]}, "L")
    assert check_report("An oval mass in the left breast, with no suspicious calcifications.", record) == ()


def test_what_the_record_says_may_be_said_in_its_own_sentences():
    text = "BI-RADS 4, suspicious. Scattered areas of fibroglandular density. No skin thickening on the left. "
    assert check_report(text + BOTH, RECORD) == ()


def test_facts_of_a_clear_breast_have_no_list_of_negatives():
    facts = breast_facts(record_of({"findings": []}, "L"))
    assert (facts.present, facts.absent) == (("no suspicious finding",), ())


def test_facts_for_a_writer_name_every_finding_with_its_place_and_no_patient():
    facts = breast_facts(RECORD)
    assert facts.present[:2] == (
        "a 12 mm irregular mass with spiculated margins in the upper outer quadrant of the left breast",
        "vascular calcifications in the lower inner quadrant of the left breast",
    )
    assert facts.absent == ("skin thickening",)
    assert (facts.image, facts.view) == ("mammogram of the left breast", "craniocaudal view")


def test_the_verb_of_several_denied_findings_is_that_of_the_noun_beside_it() -> None:
    record = record_of({"density": "B", "findings": [{"type": "mass"}]}, "L")
    rng, plurals = np.random.default_rng(0), 0
    for _ in range(300):
        for sentence in sentences(draw_report(record, rng)):
            opened = re.search(
                r"there (is|are) no (?!evidence)([^,.]*?)(?:,| or |\.| (?:on|in|within) )", sentence, re.I
            )
            if opened:
                assert opened[1] == ("are" if "calcifications" in opened[2] else "is"), sentence
                plurals += opened[1] == "are"
    assert plurals > 5
