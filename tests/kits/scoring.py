"""A tiny model pack and small studies, built by code, for the tests of scoring, reports and the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medclip.imaging.geometry import TokenBudget
    from medclip.models.inputs.signal_input import SignalInput
    from medclip.runs.outputs.score_run import ScoreRun

SIZE_PX = 64
PLANTED = {
    "PatientName": "ROENTGEN^WILHELM",
    "PatientID": "MRN-7731902",
    "PatientBirthDate": "18450327",
    "StudyDate": "20240229",
    "StudyTime": "134501",
    "AccessionNumber": "ACC-550012",
    "InstitutionName": "St Elsewhere General",
    "ReferringPhysicianName": "HOUSE^GREGORY",
    "StudyDescription": "VISIT of Wilhelm Roentgen",
    "PatientComments": "<script>alert('Roentgen')</script>",
}
"""Header values that no output may contain."""
STUDY_UID = "1.2.826.0.1.3680043.8.498.777"
WORDED = ("brain_mri_tumour", "breast_density", "chest_xray_findings", "chest_xray_view", "fundus_cataract", "modality")
"""Tasks whose sentences the tokenizer learns: always the same, so that a new task changes no score of the tests."""


def every_way() -> dict[str, str]:
    """Give the preprocessing hash of every adapter and kind, as if a pack had been trained on all of them."""
    from medclip.adapters.registry import ADAPTERS, get_adapter, slot
    from medclip.sample import Modality

    ways = {}
    for name in ADAPTERS:
        adapter = get_adapter(name)
        for kind in sorted(adapter.kinds):
            ways[slot(None if name == "generic" else Modality(name), kind)] = adapter.preprocessing_of(kind)
    return ways


def make_pack(
    folder: Path,
    adapters: dict[str, str] | None = None,
    budget: TokenBudget | None = None,
    *,
    fuses: bool = False,
    signal: SignalInput | None = None,
    seed: int = 0,
    **card: Any,
) -> Path:
    """Write a pack with random weights: 64 px or a budget of tokens, 32 dimensions, tasks of several modalities.

    With `fuses` it weighs the views of an examination; with `signal` it takes ECGs, by patches of every lead.
    """
    import torch

    from medclip.adapters.registry import get_adapter
    from medclip.models.inputs.preprocess import Preprocess
    from medclip.models.packs.card import Card
    from medclip.models.packs.pack import save_pack
    from medclip.models.towers.build import build_clip, default_config
    from medclip.sample import Kind, Modality
    from medclip.text.tokenizers.tokenizer import train_tokenizer
    from medclip.text.vocabulary.load import load_task
    from medclip.text.vocabulary.prompts import expand

    prompts = [text for name in WORDED for c in expand(load_task(name)) for text in (*c.positive, *c.negative)]
    tokenizer_folder = folder.parent / f"{folder.name}-tokenizer"
    tokenizer = train_tokenizer(prompts, tokenizer_folder, vocab_size=800, context_length=24)
    config = default_config(
        vocab_size=tokenizer.vocab_size,
        context_length=24,
        embed_dim=32,
        size_px=SIZE_PX,
        text_width=32,
        text_heads=2,
        text_layers=1,
    )
    if budget is not None:
        config["vision_cfg"] |= {"timm_model_name": "test_vit", "native_aspect": True}
    if signal is not None:
        tower = {"tower": "lead_patch", "size": "test", "patch": signal.num_samples // 10}
        config["vision_cfg"] = {"signal": {**tower, "samples": signal.num_samples}}
    if fuses:
        config["fusion"] = {"kind": "attention"}
    torch.manual_seed(seed)
    model = build_clip(config).eval()
    if fuses:  # a new one weighs all views alike, and leaves a view by itself as it is
        torch.nn.init.normal_(model.fusion.score.weight)  # pyright: ignore
        torch.nn.init.normal_(model.fusion.shift.weight, std=0.05)  # pyright: ignore
    figure = {"value": 0.81, "low": 0.74, "high": 0.88, "chance": 0.5, "n_patients": 71, "n_images": 93}
    read = (Modality.XRAY, Modality.MAMMOGRAPHY, Modality.MRI, Modality.FUNDUS)
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "summary": "Random weights, for tests.",
        "intended_use": "Tests of medclip.",
        "modalities": [str(m) for m in read],
        "tasks": {
            "modality": {"classes": [str(m) for m in read], "metrics": {"balanced_accuracy": figure}},
            "chest_xray_view": {"classes": ["ap", "pa", "lateral"], "metrics": {"balanced_accuracy": figure}},
            "chest_xray_findings": {"classes": ["pneumonia", "effusion"], "metrics": {"macro_auroc": figure}},
            "brain_mri_tumour": {"classes": ["glioma", "no_tumour"]},
            "breast_density": {"classes": ["fatty", "dense_glandular"]},
        },
        "data": [{"name": "noise", "source": "made by code", "licence": "CC0", "num_images": 1, "num_patients": 1}],
        "licence": "Apache-2.0",
        "limits": ["Knows nothing."],
        **card,
    }
    if adapters is None:
        adapters = {str(m): get_adapter(m).preprocessing_of(Kind.IMAGE) for m in read}
        adapters["generic"] = get_adapter(None).preprocessing_of(Kind.IMAGE)
    return save_pack(
        folder,
        model,
        tokenizer_folder,
        Preprocess(size_px=SIZE_PX, adapters=adapters, budget=budget, signal=signal),
        Card.model_validate(values),
        config=config,
    )


def texture(seed: int, height: int = 90, width: int = 70) -> NDArray[np.uint8]:
    """Make a grey image that is not constant: a few bright blobs on a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = 40 + 60 * x / width
    for _ in range(4):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(6, 20)
        image += 120 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r))
    return np.clip(image, 0, 255).astype(np.uint8)


def write_png(path: Path, seed: int, **size: int) -> Path:
    """Write a grey PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(texture(seed, **size)).save(path)
    return path


def write_dicom(path: Path, seed: int, *, modality: str = "DX", study_uid: str = STUDY_UID, **tags: Any) -> Path:
    """Write a small DICOM image whose header is full of identifiers."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    sop_class = {"DX": "1.2.840.10008.5.1.4.1.1.1.1", "MG": "1.2.840.10008.5.1.4.1.1.1.2"}.get(
        modality, "1.2.840.10008.5.1.4.1.1.7"
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = f"{study_uid}.9.{seed}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = texture(seed).astype(np.uint16) * 16
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    dataset.Modality = modality
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in {**PLANTED, **tags}.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def small_folder(root: Path) -> Path:
    """Make a folder with a bit of everything: two DICOM studies, PNGs, a broken file, an empty one, a text."""
    write_dicom(root / "a" / "1.dcm", 1)
    write_dicom(root / "a" / "2.dcm", 2)
    write_dicom(root / "b" / "scan", 3, modality="MG", study_uid=f"{STUDY_UID}.2")
    for seed in range(4):
        write_png(root / "png" / f"{seed}.png", 10 + seed)
    (root / "broken.png").write_bytes(write_png(root / "whole.png", 20).read_bytes()[:200])
    (root / "empty.dcm").touch()
    (root / "notes.txt").write_text("nothing to see\n")
    return root


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model pack."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder with a bit of everything. Read only."""
    return small_folder(tmp_path_factory.mktemp("studies"))


def digests(folder: Path) -> dict[str, str]:
    """Hash the results of a run."""
    names = ("files.parquet", "scores.parquet", "run.json", "report.html")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def rows(run: ScoreRun) -> dict[str, dict[str, Any]]:
    """Give the file rows of a run by path."""
    return {row["path"]: row for row in run.files.to_pylist()}
