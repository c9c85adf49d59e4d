"""Stage 8: put into the pack where the images lie that its figures were measured on, modality by modality.

Usage: python pipelines/mini/home.py SHARED_DATA [PACK]

The law of a set is fitted to the images that the pack was trained on, and its unit to those of other patients that it
was not. Which sets they are follows from the card: those within which its figures for a modality were measured. For
radiographs that is what the figures of findings are of; other sites may be trained on besides. What comes out is
printed: for radiographs also how films of covid_cxr and of vqa_rad are told from films of ChestX-ray14 that the law was
not fitted to. Intervals resample patients.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shared_sets import rows_of

import medclip
from medclip.models.packs.card import Card
from medclip.models.packs.pack import check_pack, find_pack, pack_card, update_pack
from medclip.models.prototypes.home_images import FILE_NAME, Home, fit_home, save_homes
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import Resampled, interval_of
from medclip.text.vocabulary.load import load_task
from medclip.wording import list_of

TITLES = {
    "nih_cxr": "ChestX-ray14",
    "csdi_fundus": "CSDI",
    "mini_mias": "mini-MIAS",
    "cdd_cesm": "CDD-CESM",
    "ddsm_4view": "DDSM",
    "brain_mri": "the brain tumour set of Bhuvaji et al.",
    "medpix2": "MedPix",
    "vqa_rad": "VQA-RAD",
    "bus_bra": "BUS-BRA",
    "breast_us": "BrEaST",
    "isic2017": "ISIC 2017",
    "glas_colon": "GlaS",
    "kermany_cxr": "films of children of Guangzhou (Kermany et al.)",
    "idrid": "IDRiD",
    "knee_kl": "OSAIL's knees",
    "monuseg_he": "MoNuSeg",
}
"""What a set is called. Of ECGs there is no home: a sheet and cuttings of a record are two kinds of images."""
NOT_FINDINGS = frozenset({"modality", "chest_xray_view"})
"""Tasks that are about how an image was made: their sources are no home of the findings."""
NO_PLACE = frozenset({"covid_cxr"})
"""Films out of publications, of hundreds of sites: near them lies nearly every film from elsewhere."""
FRONTAL = ("AP", "PA", "AP Supine", "AP Erect")
FEWEST = 40

Fitted = tuple[Home, NDArray[np.float32], list[str]]
"""A home, and images of it that it was not fitted to: their vectors and the SHA-256 of their files."""


def vectors(images: object, model: str, modality: str) -> tuple[NDArray[np.float32], list[str]]:
    """Embed images through the adapter of their modality; with the SHA-256 of each file."""
    embedded = medclip.embed(images, model=model, modality=modality)
    return embedded.vectors("units"), embedded.units["sha256"].to_pylist()


def sets_of(card: Card) -> dict[str, tuple[str, ...]]:
    """Return for each modality the sets that the figures of its findings were measured within.

    Args:
        card: The pack's. A task of several modalities (the part of the body) counts where a modality has no other.
    """
    own: dict[str, set[str]] = {}
    shared: dict[str, set[str]] = {}
    for name, entry in card.tasks.items():
        if name in NOT_FINDINGS:
            continue
        sources = {source for of in entry.sources.values() for source in of.sources}
        sources = (sources & TITLES.keys()) - NO_PLACE
        asked = load_task(name).modalities
        for modality in asked:
            (own if len(asked) == 1 else shared).setdefault(str(modality), set()).update(sources)
    return {modality: tuple(sorted(names)) for modality, names in sorted((shared | own).items()) if names}


def images_of(data: Path, modality: str, sets: tuple[str, ...]) -> list[Path]:
    """Return the images of a modality in some sets."""
    return sorted({data / row["file"] for row in rows_of(data, sets) if row["modality"] == modality})


def home_of(data: Path, modality: str, sets: tuple[str, ...], model: str, seen: frozenset[str]) -> Fitted | None:
    """Fit a law to some sets of a modality, with the images that it was not fitted to.

    None where too few images were not trained on to say how far from home an image of home lies.
    """
    images = images_of(data, modality, sets)
    if not images:
        return None
    features, hashes = vectors(images, model, modality)
    is_seen = np.array([sha256 in seen for sha256 in hashes])
    if min((~is_seen).sum(), is_seen.sum()) < FEWEST:
        named = list_of(list(sets))
        print(f"{modality}, {named}: {is_seen.sum()} images trained on, {(~is_seen).sum()} not; {FEWEST} are needed")
        return None
    held_out = [sha256 for sha256 in hashes if sha256 not in seen]
    source = list_of([TITLES[name] for name in sets])
    return fit_home(features[is_seen], features[~is_seen], source), features[~is_seen], held_out


def homes_of(data: Path, modality: str, sets: tuple[str, ...], model: str, seen: frozenset[str]) -> list[Fitted]:
    """Fit a law to each set of a modality, and one to those together that have too few images each."""
    fitted = {name: home_of(data, modality, (name,), model, seen) for name in sets}
    few = tuple(name for name in sets if fitted[name] is None)
    both = home_of(data, modality, few, model, seen) if len(few) > 1 else None
    return [one for one in (*fitted.values(), both) if one is not None]


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
    for modality, sets in sets_of(card).items():
        if not (fitted := homes_of(data, modality, sets, model, seen)):
            continue
        homes[modality] = Home(tuple(law for home, _, _ in fitted for law in home.laws))
        films |= {law.source: (features, hashes) for home, features, hashes in fitted for law in home.laws}
        for law in homes[modality].laws:
            print(f"{modality}, {law.source}: fitted to {law.num_fitted} images, unit of {law.num_held_out}")
    if (nih := TITLES["nih_cxr"]) in films:
        compare_films(data, model, homes["xray"], *films[nih])
    with tempfile.TemporaryDirectory() as folder:
        save_homes(Path(folder), homes)
        update_pack(pack, extra_files={FILE_NAME: (Path(folder) / FILE_NAME).read_bytes()})
    check_pack(model)


def compare_films(data: Path, model: str, home: Home, features: NDArray[np.float32], hashes: list[str]) -> None:
    """Print how films of other sites are told from films of home that the law was not fitted to.

    Args:
        data: The folder of shared sets.
        model: The pack.
        home: That of radiographs.
        features: Vectors of films of ChestX-ray14 that it was not fitted to.
        hashes: The sha256 of their files.
    """
    near, patients = home.distances(features), patients_of(data)
    here = [patients[sha256] for sha256 in hashes]
    share = measured(np.ones(len(near), int), near - 1, here, ["accuracy"])["accuracy"]
    print(f"held-out films: {(near > 1).sum()} of {len(near)} of {len(set(here))} patients beyond 1, {in_words(share)}")
    for name, paths in elsewhere(data).items():
        features, hashes = vectors(paths, model, "xray")
        far, there = home.distances(features), [patients[sha256] for sha256 in hashes]
        share = measured(np.ones(len(far), int), far - 1, there, ["accuracy"])["accuracy"]
        is_far = np.repeat([0, 1], [len(near), len(far)])
        area = measured(is_far, np.concatenate([near, far]), [*here, *there], ["auroc"])["auroc"]
        print(
            f"{name}: {(far > 1).sum()} of {len(far)} of {len(set(there))} patients beyond 1, {in_words(share)}; "
            f"AUROC against held-out films {in_words(area)}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
