"""Every shared set that weights may be trained on: who its patients are, what is known of each row, and its own words.

This stands once, for the table of the pack (table.py) and for that of the masked pretraining (mae_all/joint_table.py):
`medclip shards build` divides by the name of the patient, so whoever is held out in one is held out in the other.

The six sets of pack 1.2 come from prepare.py, and keep their patients and labels.

Left out: covid_blues (no derivatives), covid_ct (copyrights of publishers), openstax_fig (figures of textbooks are of
no modality; the guard alone learns what is no medical image), rows of covid_cxr without derivatives and its CT slices,
the NYU exams of mammo_4view (AGPL-3.0 repositories), images of vqa_rad that are in medpix2 too, photographs in medpix2,
and text_cbis: its words are of women whose images are not here, but for one examination, which is in examples/ and held
out.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parent))

import prepare as mini

from medclip.evaluation.zero_shot.open_set_tables import modality_of
from medclip.text.captions import quoted_words

Row = dict[str, str]
GLAS_MPP_UM = "0.62"
LICENCES = {
    "glas_colon": "GlaS: research only, non-commercial, citation asked",
    "ecg_sheet": "none stated",
    "cdd_cesm": "CDD-CESM, believed CC BY 4.0 (not verified)",
    "ddsm_4view": "none stated (DDSM)",
    "isic2017": "ISIC 2017, believed CC-0 (not verified)",
    "bus_bra": "BUS-BRA: academic and research use, citation asked",
    "breast_us": "CC BY 4.0",
    "medpix2": "none stated",
    "vqa_rad": "CC0 1.0",
    "ptbxl": "CC BY 4.0",
    "ptbxl_z": "CC BY 4.0",
    "kermany_cxr": "none in the repositories; believed CC BY 4.0 (not verified)",
    "idrid": "CC BY 4.0",
    "knee_kl": "none stated",
    "opg_dental": "none stated",
    "monuseg_he": "none in the repository; MoNuSeg, believed CC BY-NC-SA 4.0",
    "kvasir_seg": "none in the repository; Kvasir-SEG: research and education, citation asked (not verified)",
}
"""Those of the other sets are in prepare.py."""
PATIENTS_KNOWN = frozenset(
    (
        "nih_cxr",
        "mini_mias",
        "cbis_ddsm",
        "glas_colon",
        "ptbxl",
        "ptbxl_z",
        "cdd_cesm",
        "bus_bra",
        "breast_us",
        "ddsm_4view",
        "kermany_cxr",
        "monuseg_he",
    )
)
"""Sources whose `patient` is a person. Elsewhere it is the nearest that is known: a group of near-duplicates
(brain_mri, ecg_sheet, isic2017, covid_cxr, knee_kl, kvasir_seg), an eye (csdi_fundus, idrid), a case (medpix2) or an
image (vqa_rad, opg_dental)."""
SAME_ORIGIN = {"ptbxl_z": "ptbxl", "vqa_rad": "medpix2", "cbis_ddsm": "ddsm_4view"}
"""Sets that are of what another one is of: records of PTB-XL that were scaled anew, images of MedPix (Lau et al. 2018),
films of DDSM (Lee et al. 2017). What holds in both has not been shown of another place."""
SHEETS = {
    "normal": "normal",
    "abnormal": "abnormal_heartbeat",
    "mi": "myocardial_infarction",
    "post_mi": "previous_infarction",
}
COMPOSITIONS = {"2": "scattered_fibroglandular", "3": "heterogeneously_dense"}
REGIONS = {
    "Head": "head",
    "Thorax": "thorax",
    "Abdomen": "abdomen",
    "Reproductive and Urinary System": "pelvis",
    "Spine and Muscles": "musculoskeletal",
}
ORGANS = {"HEAD": "head", "CHEST": "thorax", "ABD": "abdomen"}
MODALITIES = {"CT": "ct", "MR": "mri"}
GRADES = ("no_retinopathy", "mild", "moderate", "severe", "proliferative")
OEDEMA = ("no_exudates", "exudates_away", "exudates_at_macula")
THORAX_ONE_IN = 4
"""Share of chest films that say which region they show, so that a jaw and a knee are told from something: said of all
of them it would stand in the place of what they are there for."""
CHEST_FILMS = frozenset({"nih_cxr", "kermany_cxr"})
"""Sets of nothing but such films: whether they say so or not, figures are of all of them."""
SQUARED = frozenset({"kermany_cxr"})
"""Sets of films whose shape tells the finding: the table has their squares (square_films.py)."""


def films(data: Path) -> Iterator[Row]:
    """Chest X-rays of NIH; strata break the tie between pneumonia and projection."""
    for row in mini.nih(data):
        said = "pneumonia" if row["label:chest_xray_findings:pneumonia"] == "1" else "no pneumonia"
        yield row | _thorax(row["file"]) | {"stratum": f"{said} {row['view'].lower()}"}


def children(data: Path) -> Iterator[Row]:
    """Films of children of one hospital, with and without pneumonia; nothing else was looked for."""
    for r in read_labels(data / "kermany_cxr"):
        findings = {"pneumonia": str(int(r["label"] == "pneumonia")), "covid_19": "0"}  # all taken before 2018
        known = {f"label:chest_xray_findings:{name}": value for name, value in findings.items()}
        known |= _thorax(r["file"]) | {"stratum": r["label"]}
        yield _row("kermany_cxr", r["file"], f"kermany:{r['patient_id']}", "xray", **known)


def _thorax(file: str) -> Row:
    return {} if crc32(file.encode()) % THORAX_ONE_IN else {"label:body_region": "thorax"}


def covid_films(data: Path) -> Iterator[Row]:
    """Published X-rays; a group with a film without findings is held out: sources are compared on them.

    Nearly all of them have pneumonia, so that who learns it from them learns where they are from: of films with a
    finding it is not said that they have pneumonia, only whether it is COVID-19.
    """
    rows = [row for row in mini.covid(data) if row["modality"] == "xray"]
    held_out = {row["patient"] for row in rows if row.get("label:chest_xray_findings:pneumonia") == "0"}
    for row in rows:
        covid = row.get("label:chest_xray_findings:covid_19")
        if row["patient"] not in held_out:
            row.pop("label:chest_xray_findings:pneumonia", None)
        stratum = {"1": "covid-19", "0": "other pneumonia"}.get(covid or "", "not stated")
        split = {"split": "test"} if row["patient"] in held_out else {}
        captions = quoted_words.joined(quoted_words.quotable(row.pop("caption")))
        yield row | split | {"stratum": stratum, "captions": captions}


def fundus(data: Path) -> Iterator[Row]:
    """Fundus photographs with the words of an expert."""
    for row in mini.fundus(data):
        stratum = "cataract" if row["label:fundus_cataract:cataract"] == "1" else "no cataract"
        captions = quoted_words.joined(quoted_words.quotable(row.pop("caption")))
        yield row | {"stratum": stratum, "captions": captions}


def film_mammograms(data: Path) -> Iterator[Row]:
    """Digitised film, oblique views: density, and whether there is a lesion."""
    severity = {f"mini_mias/{r['file']}": r["severity"] for r in read_labels(data / "mini_mias")}
    for row in mini.mias(data):
        pathology = severity[row["file"]] or "normal"
        yield row | {"label:mammography_malignancy": pathology, "stratum": row["label:breast_density"]}


def mammogram_exams(data: Path) -> Iterator[Row]:
    """The full examination of CBIS-DDSM."""
    yield from mini.four_view(data)


def brain_slices(data: Path) -> Iterator[Row]:
    """Brain MRI slices."""
    for row in mini.brain(data):
        yield row | {"stratum": row["label:brain_mri_tumour"]}


def glas(data: Path) -> Iterator[Row]:
    """Tiles of H&E-stained colon, of eleven patients."""
    for r in read_labels(data / "glas_colon"):
        tumour = "tumour" if r["grade"] == "malignant" else "normal"
        known = {"mpp_um": GLAS_MPP_UM, "label:histology_tumour": tumour, "stratum": r["grade"]}
        yield _row("glas_colon", r["file"], f"glas:{r['patient_id']}", "pathology", **known)


def ecg_sheets(data: Path) -> Iterator[Row]:
    """Printed ECG sheets."""
    for r in read_labels(data / "ecg_sheet"):
        label = SHEETS[r["label"]]
        yield _row(
            "ecg_sheet", r["file"], f"ecg_sheet:{r['group']}", "ecg", **{"label:ecg_sheet": label, "stratum": label}
        )


def contrast_mammograms(data: Path) -> Iterator[Row]:
    """Subtracted views of contrast-enhanced mammography, with what a radiologist wrote of each."""
    for r in read_labels(data / "cdd_cesm"):
        pathology = r["pathology"].lower()
        known = {
            "view": r["view"],
            "view_kind": "subtracted",
            "laterality": r["laterality"],
            "age": r["age"],
            "sex": "F",
            "label:mammography_malignancy": pathology,
            "stratum": pathology,
            "captions": quoted_words.joined(quoted_words.findings_of(r["findings"])),
        }
        yield _row("cdd_cesm", r["file"], f"cdd_cesm:{r['patient_id']}", "mammography", **known)


def film_exams(data: Path) -> Iterator[Row]:
    """Screen-film mammography exams with four views; all benign, so of malignancy they say nothing."""
    for r in read_labels(data / "ddsm_4view"):
        composition = COMPOSITIONS[r["density"]]
        known = {
            "view": r["view"],
            "laterality": r["laterality"],
            "age": r["age"],
            "sex": "F",
            "label:breast_composition": composition,
            "stratum": composition,
        }
        yield _row("ddsm_4view", r["file"], f"ddsm_4view:{r['exam']}", "mammography", **known)


def skin(data: Path) -> Iterator[Row]:
    """Dermoscopy."""
    for r in read_labels(data / "isic2017"):
        label = r["label"].replace(" ", "_")
        known = {"age": r["age"], "sex": r["sex"], "label:skin_lesion": label, "stratum": label}
        yield _row("isic2017", r["file"], f"isic2017:{r['group']}", "dermatology", **known)


def breast_lesions(data: Path) -> Iterator[Row]:
    """Breast ultrasound, one or two views of a lesion."""
    for r in read_labels(data / "bus_bra"):
        side = r["laterality"] if r["laterality"] in ("left", "right") else ""
        known = {"laterality": side, "sex": "F", "label:breast_ultrasound_malignancy": r["pathology"]}
        yield _row("bus_bra", r["file"], f"bus_bra:{r['patient_id']}", "ultrasound", **known, stratum=r["pathology"])


def breast_masses(data: Path) -> Iterator[Row]:
    """Breast ultrasound, one image of a woman, with the words of BI-RADS; three images show no lesion."""
    for r in read_labels(data / "breast_us"):
        known = {"age": r["age"], "sex": "F", "captions": quoted_words.joined(quoted_words.mass_of(r))}
        if r["classification"] != "normal":
            known["label:breast_ultrasound_malignancy"] = r["classification"]
        yield _row(
            "breast_us", r["file"], f"breast_us:{r['patient_id']}", "ultrasound", **known, stratum=r["classification"]
        )


def teaching_files(data: Path) -> Iterator[Row]:
    """CT and MR images of teaching files; photographs among them are left out."""
    for r in read_labels(data / "medpix2"):
        if r["plane"] == "Photograph":
            continue
        modality, region = MODALITIES[r["modality"]], REGIONS[r["region"]]
        captions = quoted_words.joined(quoted_words.of_teaching_file(r))
        known = {"age": r["age"], "sex": r["sex"], "label:body_region": region, "stratum": f"{modality} {region}"}
        yield _row(
            "medpix2", r["file"], f"medpix2:{r['group']}", modality, **known, captions=captions, study=r["group"]
        )


def questioned(data: Path) -> Iterator[Row]:
    """Radiology images with questions and answers, which state the modality of most."""
    pairs: dict[str, list[Row]] = {}
    for pair in read_labels(data / "vqa_rad", "qa.csv"):
        pairs.setdefault(pair["file"], []).append(pair)
    for r in read_labels(data / "vqa_rad"):
        if r["also_in_medpix2"] != "0":
            continue
        asked = pairs.get(r["file"], [])
        modality, region = modality_of(asked, r["organ"]), ORGANS[r["organ"]]
        known = {"stratum": f"{modality or 'not stated'} {region}"}
        if modality in MODALITIES.values():
            known["label:body_region"] = region
        captions = quoted_words.joined(quoted_words.of_answers(asked))
        yield _row("vqa_rad", r["file"], f"vqa_rad:{r['group']}", modality, **known, captions=captions)


def graded_fundus(data: Path) -> Iterator[Row]:
    """Fundus photographs of people with diabetes, graded by experts."""
    for r in read_labels(data / "idrid"):
        grade = GRADES[int(r["dr_grade"])]
        known = {
            "label:fundus_retinopathy:referable": r["referable"],
            "label:fundus_retinopathy_grade": grade,
            "label:fundus_macular_oedema": OEDEMA[int(r["dme_risk"])],
            "stratum": grade,
        }
        yield _row("idrid", r["file"], f"idrid:{r['image_id']}", "fundus", **known)


def knees(data: Path) -> Iterator[Row]:
    """Frontal films of knees, with Kellgren and Lawrence's grade."""
    for r in read_labels(data / "knee_kl"):
        grade = f"kl_{r['kl_grade']}"
        known = {"label:knee_osteoarthritis:osteoarthritis": r["oa"], "label:knee_kl_grade": grade, "stratum": grade}
        yield _row("knee_kl", r["file"], f"knee:{r['group']}", "xray", **known, **{"label:body_region": "knee"})


def jaws(data: Path) -> Iterator[Row]:
    """Panoramic dental films; what their boxes are of is not stated."""
    for r in read_labels(data / "opg_dental"):
        yield _row("opg_dental", r["file"], f"opg:{r['image_id']}", "xray", **{"label:body_region": "jaw"})


def organs(data: Path) -> Iterator[Row]:
    """Tiles of H&E-stained tumours of eight organs."""
    for r in read_labels(data / "monuseg_he"):
        known = {"mpp_um": r["mpp"], "label:histology_organ": r["organ"], "stratum": r["organ"]}
        yield _row("monuseg_he", r["file"], f"monuseg:{r['patient_id']}", "pathology", **known)


def bowels(data: Path) -> Iterator[Row]:
    """Frames of colonoscopies; all show a polyp, so that of polyps they say nothing."""
    for r in read_labels(data / "kvasir_seg"):
        yield _row("kvasir_seg", r["file"], f"kvasir:{r['group']}", "endoscopy")


SETS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "nih_cxr": films,
    "covid_cxr": covid_films,
    "csdi_fundus": fundus,
    "mini_mias": film_mammograms,
    "mammo_4view": mammogram_exams,
    "brain_mri": brain_slices,
    "glas_colon": glas,
    "ecg_sheet": ecg_sheets,
    "cdd_cesm": contrast_mammograms,
    "ddsm_4view": film_exams,
    "isic2017": skin,
    "bus_bra": breast_lesions,
    "breast_us": breast_masses,
    "medpix2": teaching_files,
    "vqa_rad": questioned,
    "kermany_cxr": children,
    "idrid": graded_fundus,
    "knee_kl": knees,
    "opg_dental": jaws,
    "monuseg_he": organs,
    "kvasir_seg": bowels,
}
"""Sets of images; the records of PTB-XL are in ecg_records.py."""


def rows_of(data: Path, sets: tuple[str, ...] = tuple(SETS)) -> Iterator[Row]:
    """Yield the rows of some sets; patients whose images ship in examples/ are in the test split.

    Args:
        data: The folder of shared sets.
        sets: Names in `SETS`.
    """
    held_out = mini.examples_held_out()
    for name in sets:
        for row in SETS[name](data):
            yield row | {"split": "test"} if row["patient"] in held_out else row


def read_labels(folder: Path, name: str = "labels.csv") -> Iterator[Row]:
    """Yield the rows of a set's table."""
    with (folder / name).open(newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def _row(source: str, file: str, patient: str, modality: str, **known: str) -> Row:
    fixed = {"file": f"{source}/{file}", "patient": patient, "modality": modality}
    stated = {name: "" if value == "unknown" else value for name, value in known.items()}
    return fixed | {"source": source, "license": LICENCES[source]} | stated


def known_of(row: Mapping[str, str], prefix: str = "label:") -> Row:
    """Return the labels of a row that say something."""
    return {name: value for name, value in row.items() if name.startswith(prefix) and value != ""}
