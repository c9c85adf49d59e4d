"""The inputs of the cases, each made by code with a fixed seed the first time that a case names it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tests.kits import adapt_tables, evaluation, few_shot, finetuning, scoring, slides, stained_slide, training
from tests.kits.audit_tables import audit_table
from tests.kits.ecg import heart, write_wfdb
from tests.kits.merging import make_family
from tests.kits.shards import write_films
from tests.kits.slide_cohort import write_cohort
from tests.kits.watched import write_run

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = b"k" * 32


def pack(folder: Path) -> None:
    """A pack with random weights."""
    scoring.make_pack(folder)


def studies(folder: Path) -> None:
    """A bit of everything: DICOM, PNG, a broken file, an empty one, a text."""
    scoring.small_folder(folder)


def films_alike(folder: Path) -> None:
    """As many images as a calibration needs."""
    for seed in range(16):
        scoring.write_png(folder / f"{seed}.png", seed)


def captions(folder: Path) -> None:
    """Sentences to rank."""
    folder.mkdir()
    (folder / "captions.txt").write_text("an X-ray image\na photograph of an eye\na mammogram\n")


def adapting(folder: Path) -> None:
    """A tiny pack, and labelled images of two classes."""
    adapt_tables.make_pack(folder / "pack")
    adapt_tables.make_table(folder, patients=12)


def comparing(folder: Path) -> None:
    """Labelled images of four classes."""
    few_shot.table(folder)


def looks(folder: Path) -> None:
    """Recipes that say how a page looks."""
    folder.mkdir()
    for name, values in {
        "paths": {"report_paths": True},
        "pneumonia": {"explain": "top", "sort_by": "chest_xray_findings:pneumonia"},
        "nonsense": {"sort_by": "nonsense"},
    }.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"report": values}))


def recipes(folder: Path) -> None:
    """Shards of films, and recipes of two steps over them."""
    shards = training.make_shards(folder, num_test=12)
    for name, recipe in (("words", training.tiny_recipe(shards)), ("masked", training.masked_recipe(shards))):
        recipe["train"]["max_steps"] = 2
        recipe["data"]["workers"] = 1
        recipe["data"]["shards"] = "in/recipes/s"
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))


def films(folder: Path) -> None:
    """Labelled films for fine-tuning, and their settings."""
    finetuning.labelled_films(folder, num_patients=20)


def suite(folder: Path) -> None:
    """Two small sets and a suite over them."""
    evaluation.small_data(folder / "data")
    (folder / "suite.yaml").write_text(evaluation.SUITE)


def audited(folder: Path) -> None:
    """The films of examples/audit as a user has them: scores and truths in a table each; and two made-up tables."""
    folder.mkdir()
    films = pd.read_csv(REPOSITORY / "examples" / "audit" / "films.csv", dtype=str, keep_default_na=False)
    films[["film", "medclip_mini"]].rename(columns={"medclip_mini": "pneumonia"}).to_csv(
        folder / "scores.csv", index=False
    )
    films.drop(columns="medclip_mini").to_csv(folder / "labels.csv", index=False)
    table = audit_table(80, splits=True, gap=0.4)
    table[["image", "flu_score"]].rename(columns={"flu_score": "flu"}).to_csv(folder / "flu.csv", index=False)
    table.assign(flu_score=table["flu_score"] ** 2)[["image", "flu_score"]].rename(columns={"flu_score": "flu"}).to_csv(
        folder / "rival.csv", index=False
    )
    table = table.drop(columns="flu_score")
    table.to_csv(folder / "truths.csv", index=False)
    table.loc[table.index[0], "split"] = "test"
    table.loc[table.index[1], "split"] = "val"
    table.to_csv(folder / "leaky.csv", index=False)
    (folder / "audit.yaml").write_text(
        "scores: in/audited/flu.csv\nlabels: in/audited/truths.csv\nby: [sex, age]\nage_bins: [0, 40, 60]\n"
        "where: {split: test}\nchoose_where: {split: val}\nnum-resamples: 100\nnum_permutations: 100\n"
    )


def watched(folder: Path) -> None:
    """Results of three runs."""
    write_run(folder / "before", patients=range(60))
    write_run(folder / "later", patients=range(200, 260), seed=1, shift=1.5)
    write_run(folder / "other", patients=range(200, 260), seed=1, shift=0.5, pack="medclip-mini 2.0")


def shard_table(folder: Path) -> None:
    """A table of films, a key and tars of others."""
    folder.mkdir()
    write_films(folder)
    (folder / "key").write_bytes(KEY)


def caption_tables(folder: Path) -> None:
    """Tables of labels, of a mammography set and of an ECG set."""
    folder.mkdir()
    tables = {
        "labels": [
            ["file", "patient", "modality", "label:brain_mri_tumour"],
            ["a.jpg", "P1", "mri", "glioma"],
            ["b.jpg", "P2", "mri", ""],
        ],
        "vindr": [
            [
                "study_id",
                "image_id",
                "laterality",
                "view_position",
                "breast_birads",
                "breast_density",
                "finding_categories",
                "split",
            ],
            ["e1", "i1", "L", "CC", "BI-RADS 4", "DENSITY C", "['Mass']", "training"],
            ["e1", "i1", "L", "CC", "BI-RADS 4", "DENSITY C", "['Skin Thickening']", "training"],
            ["e1", "i2", "R", "CC", "BI-RADS 1", "DENSITY C", "['No Finding']", "training"],
        ],
        "ptbxl": [
            ["ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"],
            ["1", "101.0", "56.0", "1", "sinusrhythmus linkstyp", "{'IMI': 35.0, 'SR': 0.0}", "3", "a_lr", "a_hr"],
            ["2", "102.0", "61.0", "0", "trace only requested.", "{'AFIB': 0.0}", "9", "b_lr", "b_hr"],
        ],
    }
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def record(folder: Path) -> None:
    """An ECG of ten seconds."""
    folder.mkdir()
    write_wfdb(folder, {lead: np.roll(line, 100) for lead, line in heart(5000).items()})


def sections(folder: Path) -> None:
    """A slide with a section on it, one of bare glass, and a pack that takes them."""
    (folder / "slides").mkdir(parents=True)
    slides.write_pyramid(folder / "slides" / "a.tiff", slides.draw_section(900, 1100))
    slides.write_pyramid(folder / "slides" / "glass.tiff", np.full((700, 900, 3), 244, np.uint8))
    slides.make_pathology_pack(folder / "pack")


def cohort(folder: Path) -> None:
    """A store of slides with planted witnesses and its labels."""
    folder.mkdir()
    write_cohort(folder)


def stained(folder: Path) -> None:
    """A stained slide and a pack that has words for it."""
    (folder / "slides").mkdir(parents=True)
    stained_slide.write_stained(folder / "slides" / "a.tiff", height=420, width=520)
    slides.make_worded_pathology_pack(folder / "pack")


def family(folder: Path) -> None:
    """Two packs that began with the same weights, and the shards that they were trained on."""
    make_family(folder, 2)


def hub(folder: Path) -> None:
    """A model folder as open_clip's hub has it."""
    from tests.kits.layouts import BPE_TEXT, VIT, hub_folder, plain_state, random_model

    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    folder.mkdir()
    hub_folder(folder, config, plain_state(random_model(config)), "open_clip_model.safetensors")


MAKERS: Mapping[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (
        pack,
        studies,
        films_alike,
        captions,
        adapting,
        comparing,
        looks,
        recipes,
        films,
        suite,
        audited,
        watched,
        shard_table,
        caption_tables,
        record,
        sections,
        cohort,
        stained,
        family,
        hub,
    )
}


def make(name: str, folder: str) -> None:
    """Make one input (a step of the driver)."""
    import torch

    torch.manual_seed(0)
    MAKERS[name](Path(folder))


def copy(source: str, target: str) -> None:
    """Copy a file or folder (a step)."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if Path(source).is_dir() else shutil.copy2)(source, target)


def write(target: str, text: str) -> None:
    """Write a text (a step)."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(text)


def preprocessing() -> dict[str, str]:
    """Return the preprocessing hash of every adapter and kind."""
    return scoring.every_way()


def packs() -> dict[str, Any]:
    """Return the digest of the built-in pack, and what its manifest says of each file."""
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import load_model

    folder = load_model().path
    return {"digest": pack_digest(folder), "manifest": json.loads((folder / "manifest.json").read_text())}


def names() -> dict[str, Any]:
    """Return the names of commands, and of what the package has."""
    import medclip
    from medclip.cli.main import COMMANDS, GROUPS

    return {"commands": sorted(COMMANDS), "groups": sorted(GROUPS), "package": sorted(medclip.__all__)}


def tar(folder: str) -> None:
    """Write a tar as others write them (a step)."""
    import io
    import tarfile

    from PIL import Image

    Path(folder).mkdir()
    with tarfile.open(Path(folder) / "000000.tar", "w") as archive:
        for number in range(4):
            image = io.BytesIO()
            Image.fromarray(scoring.texture(number)).save(image, "PNG")
            parts = {"png": image.getvalue(), "txt": f"a film, number {number}".encode(), "json": b'{"who": "p"}'}
            for suffix, body in parts.items():
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
