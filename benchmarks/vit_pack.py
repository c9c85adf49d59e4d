"""A pack of the size of ViT-B/16 with a fitted head, for benchmarks of back-ends; made in some minutes, kept nowhere.

The image tower is open_clip's ViT-B-16 at 224 px, 86 million parameters, with the random weights of a seed: nothing is
downloaded, and it takes the time of a trained one. The head (linear probe, patients apart) tells radiographs of two
folders apart, chest from breast, so that what a back-end changes is judged by decisions that can be made. Its penalty
is stronger than cross-validation would choose: vectors of random weights differ along few directions by more than the
rounding of bfloat16, and a head that leans on the others multiplies that rounding. (A head for the view of a chest film
did, and its decisions lay close together: bfloat16 changed a probability by 0.03, and int8 a decision in 64. Of this
head with C = 1 bfloat16 changed one by 0.0012.)
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from pathlib import Path

import torch

import medclip
from medclip.adapters.registry import get_adapter
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import Card
from medclip.models.packs.pack import save_pack
from medclip.models.towers.build import build_clip
from medclip.settings import Settings

BUILTIN = Path(medclip.__file__).parent / "models/builtin/medclip-mini"
SIZE_PX = 224
VISION = {"image_size": SIZE_PX, "layers": 12, "width": 768, "patch_size": 16}
"""open_clip's ViT-B-16."""
SHOTS = 32
"""Patients of each class that the head is fitted on."""
EVERY = 4
"""One film of so many is named in the table: those that the head is tested on are computed, too."""
PENALTY = 0.3
"""C of the linear probe."""


def write_vit_pack(folder: Path, images: list[Path]) -> Path:
    """Write the pack; a folder that has one is left as it is.

    Args:
        folder: Where.
        images: Folders of radiographs as JPEG, one for each class and named by it in the task; the name of a file
            begins with its patient and "_".
    """
    if (folder / "manifest.json").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        base = _write_tower(Path(scratch))
        table = _write_table(Path(scratch, "table.csv"), images)
        medclip.adapt(
            table,
            "kind",
            model=base,
            out=folder,
            method="linear-probe",
            shots=SHOTS,
            overrides={"start": "zeros", "c": PENALTY},
            test_share=0.1,
            patient="patient",
            modality="xray",
            settings=Settings(home=Path(scratch, "home")),
        )
    return folder


def head_task(pack: Path) -> str:
    """Name the task that a pack's head answers."""
    return json.loads((pack / "card.json").read_text())["adapted"]["task"]


def _write_table(path: Path, folders: list[Path]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "kind", "patient"))
        for folder in folders:
            kind = folder.resolve().parent.name if folder.name == "images" else folder.name
            for film in sorted(folder.glob("*.jpg"))[::EVERY]:
                writer.writerow((film.resolve(), kind, f"{kind}-{film.name.partition('_')[0]}"))
    return path


def _write_tower(scratch: Path) -> Path:
    tokenizer = scratch / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(BUILTIN / name, tokenizer / name)
    config = json.loads((BUILTIN / "open_clip_config.json").read_text())["model_cfg"]
    config["embed_dim"], config["vision_cfg"] = 512, VISION
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = build_clip(config).eval()
    adapters = {"xray": get_adapter("xray").preprocessing}
    card = Card(name="vit-b-16-random", version="1", summary="Random weights, for benchmarks.", modalities=("xray",))
    return save_pack(scratch / "base", clip, tokenizer, Preprocess(SIZE_PX, adapters=adapters), card, config=config)
