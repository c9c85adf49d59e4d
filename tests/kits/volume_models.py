"""Volumes and loops made by code, and a tiny pack that takes them: a ViT over tubelets with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medclip.adapters.registry import preprocessing_of
from medclip.imaging.volume.voxels import GREY_VALUES, Voxels
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.inputs.volume_input import VolumeInput, volume_input
from medclip.models.packs.card import IMPORTED, Card
from medclip.models.packs.pack import save_pack
from medclip.models.towers.build import build_clip
from medclip.sample import Kind
from medclip.settings import Settings
from medclip.shards.writing.build import Form, build_shards
from tests.kits.loops import write_cine
from tests.kits.volumes import positions_of, write_nifti, write_series

SIZE_PX, WIDTH = 32, 24
SPACING_MM = (2.0, 0.8, 0.5)
"""Of the series that `write_ct` writes."""


def ct_input(**more: Any) -> VolumeInput:
    """Return how the tiny model takes CT: clips of 8 x 32 x 32 voxels of 2 mm."""
    return volume_input(
        {"num_frames": 8, "tubelet": 2, "spacing_mm": [2, 2, 2], "window": [-200, 300], "unit": "HU", **more}
    )


def body(shape: tuple[int, int, int] = (12, 40, 60), seed: int = 0) -> NDArray[np.int16]:
    """Make a CT of an ellipse of tissue in air, with a bright rod that wanders from slice to slice."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    middle = np.hypot((y - shape[1] / 2) / (0.45 * shape[1]), (x - shape[2] / 2) / (0.45 * shape[2])) < 1
    rod = np.hypot(y - shape[1] / 2 - 4 * np.sin(z / 3 + seed), x - shape[2] / 2 - z) < 3
    hu = np.where(middle, 40 + rng.normal(0, 15, shape), -1000)
    return np.where(rod & middle, 700, hu).astype(np.int16)


def ct(seed: int = 0, **more: Any) -> Voxels:
    """Return `body` as an axial volume in HU."""
    values: dict[str, Any] = {"kind": Kind.VOLUME, "unit": "HU", "plane": "axial", "spacing_mm": SPACING_MM}
    return Voxels(**{"values": body(seed=seed), **values, **more})


def write_ct(folder: Path, seed: int = 0, **elements: Any) -> Path:
    """Write `body` as an axial CT series."""
    folder.mkdir(parents=True)
    voxels = body(seed=seed)
    write_series(folder, voxels, positions_of(len(voxels)), **elements)
    return folder


def write_ct_file(path: Path, seed: int = 0, plane: str = "axial", num_slices: int = 12) -> Path:
    """Write `body` as a NIfTI file; sagittal: the same array, whose slices then run from left to right."""
    slices, rows, columns = SPACING_MM
    axes = {"axial": [[-columns, 0, 0], [0, -rows, 0], [0, 0, slices]]}
    axes["sagittal"] = [[0, 0, slices], [-columns, 0, 0], [0, -rows, 0]]
    affine = np.eye(4)
    affine[:3, :3] = axes[plane]
    return write_nifti(path, body(seed=seed)[:num_slices].transpose(2, 1, 0), affine)


def volume_shards(folder: Path, num_train: int = 6, num_val: int = 2) -> Path:
    """Build shards of CT volumes, each of a patient of its own; returns the folder of the shards."""
    files = folder / "files"
    files.mkdir(parents=True)
    rows = []
    for n in range(num_train + num_val):
        path = write_ct_file(files / f"{n}.nii", seed=n)
        split = "train" if n < num_train else "val"
        rows.append({"file": path.name, "patient": str(n), "modality": "ct", "split": split, "source": "made here"})
    settings = Settings(workers=1)
    build_shards(
        pd.DataFrame(rows), folder / "s", Form(key=b"k" * 32, stores="volumes"), images=files, settings=settings
    )
    return folder / "s"


def loop_shards(folder: Path) -> Path:
    """Build shards of ultrasound loops of 12 frames and more: 6 to train with, 2 to validate, 4 to test."""
    files = folder / "files"
    files.mkdir(parents=True)
    rows = []
    for n in range(12):
        noise = np.random.default_rng(n).integers(0, 30, (12 + n, 40, 48), dtype=np.uint8)
        write_cine(files / f"{n}.dcm", loop(12 + n).values[..., 0] + noise, FrameTime=40, PatientID=str(n))
        split = "train" if n < 6 else "val" if n < 8 else "test"
        rows.append({"file": f"{n}.dcm", "patient": str(n), "modality": "ultrasound", "split": split})
    settings = Settings(workers=1)
    build_shards(
        pd.DataFrame(rows), folder / "s", Form(key=b"k" * 32, stores="volumes"), images=files, settings=settings
    )
    return folder / "s"


def volume_recipe(shards: Path) -> dict[str, Any]:
    """Return a masked run of six steps on CT volumes."""
    taken = {"num_frames": 8, "tubelet": 2, "spacing_mm": [2, 2, 2], "window": [-200, 300]}
    return {
        "name": "volumes",
        "seed": 3,
        "objective": "masked",
        "data": {"shards": str(shards), "workers": 2},
        "model": {"image_tower": "test_vit", "size_px": SIZE_PX, "volume": taken},
        "train": {"epochs": 3, "batch_size": 3, "warmup_steps": 1, "log_every": 1, "threads": 1, "lr": 1e-3},
    }


def loop(num_frames: int = 10, *, moving: bool = True, channels: int = 1) -> Voxels:
    """Return a loop of a disc that moves, or not, 40 ms a frame."""
    y, x = np.mgrid[:40, :48]
    frames = [180 * (np.hypot(y - 20, x - 12 - (2 * n if moving else 0)) < 8) for n in range(num_frames)]
    values = np.repeat(np.array(frames, np.uint8)[..., None], channels, axis=3)
    return Voxels(values, Kind.CINE, GREY_VALUES, frame_ms=40.0)


def volume_config(volume: VolumeInput, **more: Any) -> dict[str, Any]:
    """Return the `model_cfg` of a tiny tower of tubelets."""
    arguments = {"img_size": SIZE_PX, "patch_size": 8, "embed_dim": WIDTH, "depth": 2, "num_heads": 2, **more}
    vision = {"image_size": SIZE_PX, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "mean"}
    return {"embed_dim": WIDTH, "vision_cfg": {**vision, "timm_model_args": arguments, "tubelet": volume.tower}}


def volume_pack(folder: Path, volume: VolumeInput | None = None, way: str = "ct:volume") -> Path:
    """Write the pack of a model that was trained on one way of reading."""
    volume = volume or ct_input()
    config = volume_config(volume)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_clip(config).eval()
    card = Card(
        name="clips",
        version="1",
        summary="Random weights.",
        modalities=(way.partition(":")[0],),
        created_from={IMPORTED: "random"},
    )
    preprocess = Preprocess(SIZE_PX, volume=volume, adapters={way: preprocessing_of(way)})
    return save_pack(folder, model, None, preprocess, card, config=config, half=False)
