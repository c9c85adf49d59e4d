"""Stage 8: put into the pack where the images lie that its figures were measured on, modality by modality.

Usage: python pipelines/mini/home.py SHARED_DATA [PACK]

The law is fitted to the images that the pack was trained on, and its unit to those of other patients that it was not.
For radiographs that is the NIH set alone: the figure for pneumonia is one of ChestX-ray14, and other sites were trained
on besides (covid_cxr) and not measured. What comes out is printed: for radiographs also how films of covid_cxr and of
vqa_rad, which the pack never saw, are told from NIH films that it was not fitted to. Intervals resample patients.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import medclip
from medclip.models.packs.pack import check_pack, find_pack, pack_card, update_pack
from medclip.models.scores.home_images import FILE_NAME, Home, fit_home, save_homes
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import Resampled, interval_of

SETS = {
    "fundus": ("csdi_fundus", "CSDI"),
    "mammography": ("mini_mias", "mini-MIAS"),
    "mri": ("brain_mri", "the brain tumour set of Bhuvaji et al."),
    "xray": ("nih_cxr", "ChestX-ray14"),
}
"""Of each modality the folder of the shared data, and what the set is called."""
FRONTAL = ("AP", "PA", "AP Supine", "AP Erect")
FEWEST = 40


def vectors(images: object, model: str, modality: str) -> tuple[NDArray[np.float32], list[str]]:
    """Embed images through the adapter of their modality; with the SHA-256 of each file."""
    embedded = medclip.embed(images, model=model, modality=modality)
    return embedded.vectors("units"), embedded.units["sha256"].to_pylist()


def home_of(data: Path, modality: str, model: str, seen: frozenset[str]) -> tuple[Home, NDArray[np.float32], list[str]]:
    """Fit a modality's law; with the vectors of the images it was not fitted to, and the hashes of their files."""
    folder, source = SETS[modality]
    features, hashes = vectors(data / folder / "images", model, modality)
    is_seen = np.array([sha256 in seen for sha256 in hashes])
    if (~is_seen).sum() < FEWEST:
        raise SystemExit(f"{folder} has {(~is_seen).sum()} images that were not trained on; {FEWEST} are needed.")
    held_out = [sha256 for sha256 in hashes if sha256 not in seen]
    return fit_home(features[is_seen], features[~is_seen], source), features[~is_seen], held_out


def patients_of(data: Path) -> dict[str, str]:
    """Return the patient of each film by the hash of its file."""
    patients = {}
    for folder, column in (("nih_cxr", "patient_id"), ("covid_cxr", "group_id"), ("vqa_rad", "group")):
        with (data / folder / "labels.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                sha256 = hashlib.sha256((data / folder / row["file"]).read_bytes()).hexdigest()
                patients[sha256] = f"{folder}:{row[column]}"
    return patients


def in_words(figure: Resampled) -> str:
    """Write a figure with its interval."""
    e = interval_of(figure)
    return f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"


def elsewhere(data: Path) -> dict[str, list[Path]]:
    """Return films of other sites: frontal ones of covid_cxr, its normal ones, and chest images of vqa_rad."""
    with (data / "covid_cxr" / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["view"] in FRONTAL]
    normal = [row for row in rows if row["finding"] == "No Finding"]
    with (data / "vqa_rad" / "labels.csv").open(encoding="utf-8") as file:
        chests = [row for row in csv.DictReader(file) if row["organ"] == "CHEST"]
    return {
        "covid_cxr, frontal": [data / "covid_cxr" / row["file"] for row in rows],
        "covid_cxr, No Finding": [data / "covid_cxr" / row["file"] for row in normal],
        "vqa_rad, chest": [data / "vqa_rad" / row["file"] for row in chests],
    }


def main(data: Path, model: str = "medclip-mini") -> None:
    """Fit, measure, write, seal."""
    pack, card = find_pack(model), pack_card(model)
    seen = frozenset((pack / str(card.train_hashes_file)).read_text().split())
    homes, films = {}, {}
    for modality in SETS:
        homes[modality], *films[modality] = home_of(data, modality, model, seen)
        print(f"{modality}: fitted to {homes[modality].num_fitted} images, unit of {homes[modality].num_held_out}")
    features, hashes = films["xray"]
    near, patients = homes["xray"].distances(features), patients_of(data)
    here = [patients[sha256] for sha256 in hashes]
    share = measured(np.ones(len(near), int), near - 1, here, ["accuracy"])["accuracy"]
    print(f"held-out films: {(near > 1).sum()} of {len(near)} of {len(set(here))} patients beyond 1, {in_words(share)}")
    for name, paths in elsewhere(data).items():
        features, hashes = vectors(paths, model, "xray")
        far, there = homes["xray"].distances(features), [patients[sha256] for sha256 in hashes]
        share = measured(np.ones(len(far), int), far - 1, there, ["accuracy"])["accuracy"]
        is_far = np.repeat([0, 1], [len(near), len(far)])
        area = measured(is_far, np.concatenate([near, far]), [*here, *there], ["auroc"])["auroc"]
        print(
            f"{name}: {(far > 1).sum()} of {len(far)} of {len(set(there))} patients beyond 1, {in_words(share)}; "
            f"AUROC against held-out films {in_words(area)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        save_homes(Path(folder), homes)
        update_pack(pack, extra_files={FILE_NAME: (Path(folder) / FILE_NAME).read_bytes()})
    check_pack(model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
