"""A pack of the size of ViT-B/16 with a fitted head, for benchmarks of back-ends; made in some minutes, kept nowhere.

The image tower is open_clip's ViT-B-16 at 224 px, 86 million parameters, with the random weights of a seed: nothing is
downloaded, and it takes the time of a trained one. The head is fitted on real chest X-rays (linear probe, patients
apart), so that what a back-end changes is judged by probabilities and decisions of films, not of noise. Its penalty is
stronger than cross-validation would choose: vectors of random weights differ along few directions by more than the
rounding of bfloat16, and a head that leans on the others multiplies that rounding (a probability changed by 0.03).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch

import medclip
from medclip.adapters.registry import get_adapter
from medclip.models.card import Card
from medclip.models.packs.pack import save_pack
from medclip.models.preprocess import Preprocess
from medclip.models.towers.build import build_clip
from medclip.settings import Settings

BUILTIN = Path(medclip.__file__).parent / "models/builtin/medclip-mini"
SIZE_PX = 224
VISION = {"image_size": SIZE_PX, "layers": 12, "width": 768, "patch_size": 16}
"""open_clip's ViT-B-16."""
SHOTS = 64
"""Patients of each class that the head is fitted on."""
PENALTY = 3.0
"""C of the linear probe."""


def write_vit_pack(folder: Path, table: Path, label: str = "view", patient: str = "patient_id") -> Path:
    """Write the pack; a folder that has one is left as it is.

    Args:
        folder: Where.
        table: Chest X-rays with the column `file`, relative to the table.
        label: Its column of classes.
        patient: Its column of patients.
    """
    if (folder / "manifest.json").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        base = _write_tower(Path(scratch))
        medclip.adapt(
            table,
            label,
            model=base,
            out=folder,
            method="linear-probe",
            shots=SHOTS,
            overrides={"start": "zeros", "c": PENALTY},
            test_share=0.1,
            patient=patient,
            modality="xray",
            settings=Settings(home=Path(scratch, "home")),
        )
    return folder


def head_task(pack: Path) -> str:
    """Name the task that a pack's head answers."""
    return json.loads((pack / "card.json").read_text())["adapted"]["task"]


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
