from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import pytest

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.text.mentions import asserted, mentioned
from medclip.text.vocabulary.find_task import class_said
from medclip.text.vocabulary.load import load_task, parse_task, spoken_names, task_names

CHEST = [
    "pneumonia",
    "covid_19",
    "effusion",
    "edema",
    "atelectasis",
    "infiltration",
    "consolidation",
    "cardiomegaly",
    "pneumothorax",
    "mass",
    "nodule",
    "pleural_thickening",
    "emphysema",
    "fibrosis",
    "hernia",
]

GOOD = """
name: example
title: Example
kind: multilabel
modalities: [xray]
templates: ["{}", "X-ray: {}"]
classes:
  - {name: fracture, title: Fracture, prompts: [fracture], negative_prompts: [no fracture], nouns: [a fracture],
     stems: [fractur]}
"""


def test_the_tasks_of_this_release_have_their_names_and_classes():
    classes = {name: [c.name for c in load_task(name).classes] for name in task_names()}
    assert set(classes) == {
        "modality",
        "chest_xray_view",
        "chest_xray_findings",
        "brain_mri_tumour",
        "fundus_cataract",
        "breast_density",
        "breast_composition",
        "breast_birads",
        "breast_cancer",
        "breast_cancer_risk",
        "mammography_findings",
        "mammography_malignancy",
        "mammography_subtype",
        "ecg_superclass",
        "ecg_subclass",
        "ecg_diagnostic",
        "ecg_form",
        "ecg_rhythm",
        "ecg_all",
        "histology_tumour",
        "histology_colon_tissue",
        "histology_breast_malignancy",
        "breast_ultrasound_malignancy",
        "skin_lesion",
        "body_region",
        "ecg_sheet",
        "fundus_retinopathy",
        "fundus_retinopathy_grade",
        "fundus_macular_oedema",
        "knee_osteoarthritis",
        "knee_kl_grade",
        "histology_organ",
    }
    assert classes["chest_xray_view"] == ["ap", "pa", "lateral"]
    assert classes["chest_xray_findings"] == CHEST
    assert classes["brain_mri_tumour"] == ["glioma", "meningioma", "pituitary", "no_tumour"]
    assert classes["fundus_cataract"] == ["cataract"]
    assert classes["breast_density"] == ["fatty", "fatty_glandular", "dense_glandular"]
    assert classes["modality"][:5] == ["xray", "mammography", "ct", "mri", "fundus"]


def test_the_classes_of_a_risk_are_its_horizons_and_it_has_no_words():
    risk = load_task("breast_cancer_risk")
    assert (risk.kind, risk.level, risk.horizons_years, risk.has_words) == ("risk", "exam", (1, 2, 3, 4, 5), False)
    assert [(c.name, c.title, c.prompts) for c in risk.classes][::4] == [
        ("year_1", "Within 1 year", ()),
        ("year_5", "Within 5 years", ()),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("horizons_years: [2, 1]", "rising order"),
        ("horizons_years: []", "rising order"),
        ("horizons_years: [1, 2]\ntemplates: ['{}']", "not of words"),
        ("horizons_years: [1, 200]", "horizons_years"),
    ],
)
def test_a_mistake_in_a_risk_is_named(more, message):
    text = f"name: own_risk\ntitle: Risk\nkind: risk\nmodalities: [xray]\n{more}\n"
    with pytest.raises(MedclipError, match=message):
        parse_task(text)


@pytest.mark.parametrize(
    ("task", "name", "positive", "negative"),
    [
        ("mammography_findings", "mass", "mass", "no mass"),
        ("mammography_findings", "calcification", "suspicious calcification", "no suspicious calcification"),
        ("breast_cancer", "malignancy", "malignancy", "no malignancy"),
    ],
)
def test_the_first_wordings_of_mammography_are_the_prompts_of_the_field(task, name, positive, negative):
    found = load_task(task).class_named(name)
    assert (found.prompts[0], found.negative_prompts[0]) == (positive, negative)


def test_steps_of_an_ordered_task_leave_out_what_is_no_step():
    assert load_task("breast_birads").steps == ("birads_1", "birads_2", "birads_3", "birads_4", "birads_5")
    assert load_task("breast_composition").steps[0] == "almost_entirely_fatty"
    assert load_task("mammography_subtype").steps == ()


def test_grades_of_retina_and_knee_are_steps_from_the_lowest():
    assert load_task("fundus_retinopathy_grade").steps == (
        "no_retinopathy",
        "mild",
        "moderate",
        "severe",
        "proliferative",
    )
    assert load_task("fundus_macular_oedema").steps == ("no_exudates", "exudates_away", "exudates_at_macula")
    assert load_task("knee_kl_grade").steps == tuple(f"kl_{grade}" for grade in range(5))
    assert not load_task("histology_organ").steps


def test_a_jaw_and_a_knee_are_regions_of_the_body():
    assert {"jaw", "knee"} < {c.name for c in load_task("body_region").classes}


def test_every_class_of_the_modality_task_is_a_modality():
    assert {c.name for c in load_task("modality").classes} <= set(Modality)


@pytest.mark.parametrize("name", spoken_names())
def test_every_class_has_at_least_six_distinct_wordings_per_side(name):
    task = load_task(name)
    for c in task.classes:
        assert len({p.lower() for p in c.prompts}) == len(c.prompts) >= 6
        if task.kind == "multilabel":
            assert len({p.lower() for p in c.negative_prompts}) == len(c.negative_prompts) >= 6
        else:
            assert not c.negative_prompts


def test_positive_wordings_affirm_and_negative_wordings_deny_their_class():
    for name in (
        "chest_xray_findings",
        "fundus_cataract",
        "fundus_retinopathy",
        "knee_osteoarthritis",
        "mammography_findings",
        "breast_cancer",
        "ecg_all",
        "ecg_superclass",
        "ecg_subclass",
    ):
        for c in load_task(name).classes:
            for p in (*c.prompts, *c.nouns):
                assert asserted(name, p).get(c.name, True), p
            for p in c.negative_prompts:
                # "the heart is normal" denies without a "no"; what mentions the class must be seen as a denial
                assert not asserted(name, p).get(c.name, False), p


def test_wordings_for_a_normal_image_name_no_class():
    for name in task_names():
        for wording in load_task(name).none_prompts:
            assert not mentioned(name, wording), wording


def test_codes_look_like_codes_and_no_code_is_used_twice_in_a_task():
    for name in task_names():
        codes = [(system, code) for c in load_task(name).classes for system, code in c.codes.items()]
        assert len(set(codes)) == len(codes)
        for system, code in codes:
            if system == "sct":
                assert code.isdigit()
                assert _verhoeff(code)
            else:
                assert code.startswith("RID") if system == "radlex" else code == code.upper()


def test_the_tasks_of_ptb_xl_have_its_numbers_of_statements_and_share_one_wording_of_each():
    tasks = {name: load_task(f"ecg_{name}") for name in ("all", "diagnostic", "form", "rhythm", "subclass")}
    assert {name: len(task.classes) for name, task in tasks.items()} == {
        "all": 71,
        "diagnostic": 44,
        "form": 19,
        "rhythm": 12,
        "subclass": 23,
    }
    for name in ("diagnostic", "form", "rhythm"):
        assert all(c == tasks["all"].class_named(c.name) for c in tasks[name].classes)
    assert [c.codes["scp"] for c in load_task("ecg_superclass").classes] == ["NORM", "MI", "STTC", "CD", "HYP"]


def test_a_class_that_is_not_denied_with_others_names_classes_of_its_task_and_not_itself():
    for name in ("ecg_all", "ecg_superclass"):
        names = {c.name for c in load_task(name).classes}
        for c in load_task(name).classes:
            assert set(c.not_denied_with) <= names - {c.name}, c.name


def test_a_statement_is_known_by_its_scp_code():
    task = load_task("ecg_all")
    for code, name in {"1AVB": "avb_1", "LAO/LAE": "lao_lae", "PRC(S)": "prc_s", "ISC_": "isc"}.items():
        found = class_said(task, code)
        assert found is not None
        assert found.name == name


def test_a_file_of_ones_own_takes_classes_of_a_packaged_task_by_name():
    text = "kind: multilabel\nmodality: ecg\nclasses_of: ecg_all\nclasses: [afib, {name: sinus, prompts: [sinus]}]\n"
    task = parse_task(text, short_name="own_rhythm")
    assert task.classes[0] == load_task("ecg_all").class_named("afib")
    assert task.classes[1].name == "sinus"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("[afib]", "[afob]", "afib"), ("ecg_all", "ecg_alle", "ecg_all"), ("ecg_all", "own", "no other task")],
)
def test_a_class_or_task_that_is_not_there_is_named(old, new, message):
    text = "name: own\nkind: multilabel\nmodality: ecg\nclasses_of: ecg_all\nclasses: [afib]\n".replace(old, new)
    with pytest.raises(MedclipError, match=message) as e:
        parse_task(text, short_name="own")
    assert e.value.reason is Reason.TABLE_INVALID


def test_snomed_codes_agree_with_pydicom_where_it_knows_the_concept():
    from pydicom.sr.codedict import codes

    sct = codes.SCT
    known = {
        ("chest_xray_findings", "effusion"): sct.PleuralEffusion,
        ("chest_xray_findings", "pneumothorax"): sct.Pneumothorax,
        ("chest_xray_findings", "edema"): sct.PulmonaryEdema,
        ("fundus_cataract", "cataract"): sct.Cataract,
        ("modality", "mammography"): sct.Mammography,
        ("modality", "ct"): sct.ComputedTomography,
        ("modality", "xray"): sct.PlainRadiography,
    }
    for (task, name), code in known.items():
        assert load_task(task).class_named(name).codes["sct"] == code.value


def test_the_vocabularies_are_package_data():
    assert (files("medclip.text.vocabulary") / "tasks" / "modality.yaml").is_file()


def test_an_unknown_task_says_which_there_are():
    with pytest.raises(MedclipError, match="chest_xray_findings") as e:
        load_task("chest")
    assert e.value.reason is Reason.NO_TASK


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Example", "titel: Example", "titel"),
        ('"X-ray: {}"', '"X-ray"', "exactly one"),
        ("negative_prompts: [no fracture],", "", "negative_prompts"),
        ("prompts: [fracture]", "prompts: [fracture, Fracture]", "repeats"),
        ("[xray]", "[x-ray]", "modalities"),
        ("kind: multilabel", "kind: both", "kind"),
        ("codes: {}", "", ""),
        ("kind: multilabel", "kind: multiclass", "two classes"),
        ("kind: multilabel", "kind: multilabel\nordered: true", "ordered belongs to multiclass"),
        ("kind: multilabel", "kind: multilabel\noutside_order: [fracture]", "outside_order"),
        ("kind: multilabel", "kind: multilabel\nworst_last: true", "worst_last belongs to multiclass"),
        ("kind: multilabel", "kind: multilabel\nhorizons_years: [1]", "horizons_years belongs to risk"),
        ("kind: multilabel", "kind: multilabel\nlevel: organ", "level"),
        ("name: fracture,", "name: event_months,", "no class may be called"),
        ("title: Example", "title: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_task_file_is_named_with_the_file(old, new, message):
    assert parse_task(GOOD).classes[0].name == "fracture"
    if not message:
        return
    with pytest.raises(MedclipError, match=message) as e:
        parse_task(GOOD.replace(old, new), where="example.yaml")
    assert e.value.reason is Reason.TABLE_INVALID
    assert str(e.value).startswith("example.yaml:")


def test_the_text_room_does_not_import_torch():
    code = (
        "import sys; import medclip.text.captions.draw, medclip.text.tokenizers.tokenizer; "
        "import medclip.text.vocabulary.prompts;"
        "from medclip.text.vocabulary.load import load_task; load_task('modality'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _verhoeff(number: str) -> bool:
    """Check digit of SNOMED CT identifiers."""
    permute = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    table = list(permute)
    for _ in range(6):
        table.append([table[-1][i] for i in permute[1]])

    def multiply(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
        return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5

    check = 0
    for i, digit in enumerate(reversed(number)):
        check = multiply(check, table[i % 8][int(digit)])
    return check == 0


@pytest.mark.parametrize(
    ("task", "body_part", "fits"),
    [
        ("chest_xray_view", "CHEST", True),
        ("chest_xray_findings", "Port Chest", True),
        ("chest_xray_findings", "", True),
        ("chest_xray_findings", "unknown", True),
        ("chest_xray_findings", "HAND", False),
        ("brain_mri_tumour", "HEADNECK", True),
        ("brain_mri_tumour", "KNEE", False),
        ("breast_density", "BREAST", True),
        ("modality", "HAND", True),
        ("knee_osteoarthritis", "L KNEE", True),
        ("knee_kl_grade", "CHEST", False),
    ],
)
def test_a_task_is_about_the_body_parts_it_names(task: str, body_part: str, fits: bool):
    assert load_task(task).is_about(body_part) is fits
