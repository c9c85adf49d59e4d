"""Slides made by code: tiled pyramids, a giant that shares its tiles, DICOM slides."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

MPP = 0.5


def draw_section(height: int = 1500, width: int = 1900) -> np.ndarray:
    """A purple section with a hole and a crumb, with grain, on a bright background."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 244.0)
    section = ((y - height * 0.5) / (height * 0.36)) ** 2 + ((x - width * 0.42) / (width * 0.3)) ** 2 < 1
    hole = (y - height * 0.5) ** 2 + (x - width * 0.42) ** 2 < (height * 0.13) ** 2
    image[section & ~hole] = (190, 110, 170)
    image += ndimage.gaussian_filter(rng.normal(0, 40, (height, width, 1)), (2, 2, 0)) * 2
    return np.clip(image, 0, 255).astype(np.uint8)


def write_pyramid(
    path: Path, image: np.ndarray, *, steps: tuple[int, ...] = (1, 4), tile: int = 256, **options
) -> Path:
    """Write a tiled TIFF that OpenSlide opens as generic-tiff."""
    options = {"compression": "jpeg", "compressionargs": {"level": 90}, "photometric": "rgb", "mpp": MPP} | options
    mpp = options.pop("mpp")
    with tifffile.TiffWriter(path) as tiff:
        for step in steps:
            level = image if step == 1 else image[: len(image) // step * step, : image.shape[1] // step * step]
            if step > 1:
                height, width = level.shape[0] // step, level.shape[1] // step
                level = level.reshape(height, step, width, step, 3).mean((1, 3)).astype(np.uint8)
            scale = {"resolution": (10_000 / (mpp * step),) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
            tiff.write(level, tile=(tile, tile), subfiletype=int(step > 1), metadata=None, **scale, **options)
    return path


def write_giant(path: Path, height: int, width: int, tile: int = 256) -> Path:
    """Write a TIFF whose tiles are all the same stored bytes: any size, a small file. Levels of 1, 4 and 16."""
    import imagecodecs

    noise = np.random.default_rng(0).integers(-25, 25, (tile, tile, 1))
    block = np.clip(np.array([190, 110, 170]) + noise, 0, 255).astype(np.uint8)
    data = imagecodecs.jpeg8_encode(block, level=80, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    tile_at = len(out)
    out += data + bytes(-len(data) % 16)
    link = 8
    for step in (1, 4, 16):
        rows, columns = height // step, width // step
        count = -(-rows // tile) * -(-columns // tile)
        offsets_at = len(out)
        out += np.full(count, tile_at, "<u8").tobytes()
        counts_at = len(out)
        out += np.full(count, len(data), "<u8").tobytes()
        resolution_at = len(out)
        out += struct.pack("<II", int(10_000_000 / (MPP * step)), 1000)
        (resolution,) = struct.unpack_from("<Q", out, resolution_at)
        tags = [
            (254, 4, 1, int(step > 1)),
            (256, 4, 1, columns),
            (257, 4, 1, rows),
            (258, 3, 3, 8 | 8 << 16 | 8 << 32),
            (259, 3, 1, 7),
            (262, 3, 1, 2),
            (277, 3, 1, 3),
            (282, 5, 1, resolution),
            (283, 5, 1, resolution),
            (284, 3, 1, 1),
            (296, 3, 1, 3),
            (322, 3, 1, tile),
            (323, 3, 1, tile),
            (324, 16, count, offsets_at),
            (325, 16, count, counts_at),
        ]
        struct.pack_into("<Q", out, link, len(out))
        out += struct.pack("<Q", len(tags))
        for code, kind, number, value in tags:
            out += struct.pack("<HHQQ", code, kind, number, value)
        link = len(out)
        out += struct.pack("<Q", 0)
    path.write_bytes(out)
    return path


def write_single(path: Path, height: int, width: int, mpp: float | None, *, big: bool = True, tile: int = 2048) -> Path:
    """Write one image in JPEG tiles that are all the same stored bytes, with no other resolution beside it."""
    import imagecodecs

    data = imagecodecs.jpeg8_encode(np.full((tile, tile, 3), 170, np.uint8), colorspace="RGB", outcolorspace="RGB")
    number, count_format, start = ("Q", "Q", 16) if big else ("I", "H", 8)
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0))
    assert len(out) == start
    count = -(-height // tile) * -(-width // tile)
    tile_at = len(out)
    out += data + bytes(-len(data) % 16)

    def stored(values: bytes) -> int:
        at = len(out)
        out.extend(values)
        return at

    def many(value: int) -> int:
        return value if count == 1 else stored(np.full(count, value, f"<u{8 if big else 4}").tobytes())

    kind = 16 if big else 4
    tags = [(256, 4, 1, width), (257, 4, 1, height)]
    tags += [(258, 3, 3, 8 | 8 << 16 | 8 << 32 if big else stored(struct.pack("<HHH", 8, 8, 8)))]
    tags += [(259, 3, 1, 7), (262, 3, 1, 2), (277, 3, 1, 3)]
    if mpp:
        ratio = struct.pack("<II", round(10_000_000 / mpp), 1000)
        tags += [(code, 5, 1, struct.unpack("<Q", ratio)[0] if big else stored(ratio)) for code in (282, 283)]
        tags += [(296, 3, 1, 3)]
    tags += [
        (322, 4, 1, tile),
        (323, 4, 1, tile),
        (324, kind, count, many(tile_at)),
        (325, kind, count, many(len(data))),
    ]
    struct.pack_into(f"<{number}", out, start - struct.calcsize(number), len(out))
    out += struct.pack(f"<{count_format}", len(tags))
    for code, type_, length, value in tags:
        out += struct.pack(f"<HH{number}{number}", code, type_, length, value)
    out += struct.pack(f"<{number}", 0)
    path.write_bytes(out)
    return path


def write_dicom_slide(
    path: Path, image: np.ndarray, *, photometric: str, frames: list[bytes] | None = None, tile=128, edit=None
):
    """Write one level of a DICOM slide: native tiles, or the JPEGs given; `edit` changes the data set before."""
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50" if frames else "1.2.840.10008.1.2.1"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(ds, name, pydicom.uid.generate_uid(entropy_srcs=[name]))
    ds.Modality, ds.PatientName, ds.Manufacturer = "SM", "Planted^Name", "Kit"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.Rows = ds.Columns = tile
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = image.shape[:2]
    ds.TotalPixelMatrixFocalPlanes = 1
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.ImagedVolumeHeight, ds.ImagedVolumeWidth = (side * MPP / 1000 for side in image.shape[:2])
    ds.ImagedVolumeDepth = 0.001
    ds.SamplesPerPixel, ds.PixelRepresentation = image.shape[2], 0
    if image.shape[2] == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PhotometricInterpretation = photometric
    ds.LossyImageCompression = "01" if frames else "00"
    ds.FocusMethod, ds.ExtendedDepthOfField = "AUTO", "NO"
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    ds.TotalPixelMatrixOriginSequence = [origin]
    optical = Dataset()
    optical.OpticalPathIdentifier, optical.ObjectiveLensPower = "0", 20
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "111744", "DCM", "Brightfield illumination"
    optical.IlluminationTypeCodeSequence = [code]
    ds.OpticalPathSequence = [optical]
    ds.NumberOfOpticalPaths = 1
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [MPP / 1000, MPP / 1000], 0.001
    group.PixelMeasuresSequence = [measures]
    frame_type = Dataset()
    frame_type.FrameType = list(ds.ImageType)
    group.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    ds.SharedFunctionalGroupsSequence = [group]
    tiles = list(tiles_of(image, tile))
    ds.NumberOfFrames = len(tiles)
    ds.PixelData = encapsulate(frames) if frames else b"".join(part.tobytes() for part in tiles)
    ds["PixelData"].VR = "OB"
    if edit is not None:
        edit(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


def tiles_of(image: np.ndarray, tile: int):
    """Cut an image into tiles, row by row; the last ones padded with white."""
    padded = np.pad(image, ((0, -len(image) % tile), (0, -image.shape[1] % tile), (0, 0)), constant_values=255)
    for y in range(0, len(padded), tile):
        for x in range(0, padded.shape[1], tile):
            yield np.ascontiguousarray(padded[y : y + tile, x : x + tile])


def damage_tile(path: Path, tile: int, *, page: int = 0) -> None:
    """Overwrite the stored bytes of one tile of a TIFF so that it does not decode; its size stays."""
    with tifffile.TiffFile(path) as tiff:
        stored = tiff.pages[page]
        offset, size = stored.dataoffsets[tile], stored.databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(offset + 2)
        file.write(b"\xff\xd9" * ((size - 4) // 2))


def make_pathology_pack(folder: Path) -> Path:
    """Write a pack with random weights that says it was trained on patches of slides: 64 px, 32 dimensions."""
    from medclip.adapters.registry import get_adapter, slot
    from medclip.sample import Kind, Modality
    from tests.kits.scoring import make_pack

    pathology = Modality.PATHOLOGY
    adapters = {
        slot(pathology, kind): get_adapter(pathology).preprocessing_of(kind) for kind in (Kind.IMAGE, Kind.SLIDE)
    }
    return make_pack(folder, adapters, modalities=["pathology"], tasks={})


def make_worded_pathology_pack(folder: Path) -> Path:
    """Write the small built-in model as a pack that says it was trained on patches of slides: its words are real."""
    import json
    from dataclasses import replace

    from medclip.adapters.registry import get_adapter, slot
    from medclip.models.packs.pack import load_model, save_pack
    from medclip.sample import Kind, Modality

    model, pathology = load_model(), Modality.PATHOLOGY
    adapters = {
        slot(pathology, kind): get_adapter(pathology).preprocessing_of(kind) for kind in (Kind.IMAGE, Kind.SLIDE)
    }
    card = model.card.model_copy(update={"name": "worded", "modalities": ("pathology",), "tasks": {}})
    config = json.loads((model.path / "open_clip_config.json").read_text())["model_cfg"]
    preprocess = replace(model.preprocess, adapters=adapters)
    return save_pack(folder, model.clip, model.path, preprocess, card, config=config)
