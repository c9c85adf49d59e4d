"""Make synthetic studies of every modality: `python examples/make_phantoms.py FOLDER`.

Nothing in them comes from a patient. Shapes are simple, but sides are right: the heart is on the patient's left, the
liver on the right, so an image that is mirrored or upside down is seen at once. How-to pages and tests use them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
OCT_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
ECG_12_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def dicom(path: Path, sop_class: str, modality: str, number: int, pixels: NDArray[Any] | None, **tags: Any) -> Path:
    """Write one DICOM file; `number` tells instances of a series apart, keywords set elements."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    series = str(tags.pop("series", path.parent.name))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["phantom", series, str(number)])
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(entropy_srcs=["phantom", "study", series])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["phantom", "series", series])
    data.PatientID, data.PatientName, data.Modality = "PHANTOM-1", "PHANTOM^SYNTHETIC", modality
    data.InstanceNumber = number
    if pixels is not None:
        colour = pixels.ndim > 2 and pixels.shape[-1] == 3
        rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        bits = pixels.dtype.itemsize * 8
        data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, 3 if colour else 1
        data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = bits
        data.HighBit, data.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
        if colour:
            data.PlanarConfiguration = 0
        if pixels.ndim - colour == 3:
            data.NumberOfFrames = pixels.shape[0]
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW" if bits > 8 else "OB"
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give row and column coordinates from -1 to 1."""
    axis = np.linspace(-1, 1, size)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _inside(rows: Any, columns: Any, middle: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.bool_]:
    return ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2 < 1


def chest_slice(size: int, height: float) -> NDArray[np.float64]:
    """Draw one axial chest slice in HU; columns run to the patient's left, rows to the back, height is 0 to 1."""
    rows, columns = _grid(size)
    image = np.full((size, size), -1000.0)
    image[_inside(rows, columns, (0, 0), (0.65, 0.92))] = 40
    lung = 0.30 + 0.12 * np.sin(np.pi * height)
    for side in (-1, 1):
        image[_inside(rows, columns, (0, 0.45 * side), (0.42, lung))] = -850
    image[_inside(rows, columns, (-0.12, 0.18), (0.24, 0.20 + 0.1 * (1 - height)))] = 45  # heart, to the left
    image[_inside(rows, columns, (0.45, 0), (0.12, 0.12))] = 600  # spine, at the back
    if height < 0.3:
        image[_inside(rows, columns, (0, -0.45), (0.40, 0.40))] = 60  # dome of the liver, on the right
    return image


def ct_series(folder: Path, num_slices: int = 24, size: int = 128, spacing_mm: float = 5.0, **tags: Any) -> Path:
    """Write an axial chest CT: one DICOM file for each slice, in no useful file order."""
    noise = np.random.default_rng(1)
    for number in range(num_slices):
        hu = chest_slice(size, number / max(1, num_slices - 1)) + noise.normal(0, 12, (size, size))
        stored = np.clip(np.rint(hu) + 1024, 0, 4095).astype(np.uint16)
        dicom(
            folder / f"slice{(number * 7) % num_slices:03d}.dcm",
            CT_IMAGE,
            "CT",
            number + 1,
            stored,
            **{
                "BitsStored": 12,
                "HighBit": 11,
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
                "RescaleType": "HU",
                "WindowCenter": [-600, 40],
                "WindowWidth": [1500, 400],
                "WindowCenterWidthExplanation": ["LUNG", "SOFT"],
                "ImagePositionPatient": [-160.0, -160.0, -60.0 + spacing_mm * number],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [320 / size, 320 / size],
                "SliceThickness": spacing_mm,
                "BodyPartExamined": "CHEST",
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                **tags,
            },
        )
    return folder


def mr_volume(path: Path, size: int = 64) -> Path:
    """Write a brain MR as NIfTI with its first axis to the left (LAS), 2 mm voxels; a bright lesion on the left."""
    import nibabel

    axis = np.linspace(-1, 1, size)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")  # right, front, top
    voxels = np.zeros((size, size, size))
    voxels[(x / 0.75) ** 2 + (y / 0.9) ** 2 + (z / 0.8) ** 2 < 1] = 300
    voxels[(x / 0.68) ** 2 + (y / 0.83) ** 2 + (z / 0.73) ** 2 < 1] = 600
    voxels[(np.abs(x) < 0.12) & (np.abs(y) < 0.3) & (np.abs(z) < 0.2)] = 150
    voxels[(x + 0.35) ** 2 + (y - 0.3) ** 2 + (z - 0.1) ** 2 < 0.02] = 1000
    voxels += np.random.default_rng(2).normal(0, 15, voxels.shape)
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (size, -size, -size)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.clip(voxels[::-1], 0, None).astype(np.int16), affine), path)
    return path


def ultrasound_cine(path: Path, num_frames: int = 20, **tags: Any) -> Path:
    """Write an ultrasound loop: a sector with a beating chamber, a text margin, and its calibrated region."""
    from pydicom.dataset import Dataset

    rows, columns = np.meshgrid(np.linspace(0, 1, 180), np.linspace(-1, 1, 240), indexing="ij")
    depth, angle = np.hypot(rows, columns * 0.7), np.arctan2(columns * 0.7, rows + 1e-6)
    sector = (np.abs(angle) < 0.62) & (depth < 0.95) & (depth > 0.08)
    speckle = np.random.default_rng(3).rayleigh(45, sector.shape)
    frames = np.zeros((num_frames, 200, 320), np.uint8)
    for number in range(num_frames):
        radius = 0.16 + 0.05 * np.sin(2 * np.pi * number / num_frames)
        frame = np.where(sector, 40 + speckle, 0)
        frame[_inside(rows, columns, (0.55, 0.05), (radius, radius * 1.6)) & sector] = 12
        frames[number, 10:190, 40:280] = np.clip(frame, 0, 255)
    frames[:, 2:8, 4:60:2] = 230  # the margin where a machine writes
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 40, 10
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 279, 189
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.08
    values = {"FrameTime": 40, "SequenceOfUltrasoundRegions": [region], "ImageType": ["ORIGINAL", "PRIMARY"], **tags}
    return dicom(path, US_MULTIFRAME, "US", 1, frames, **values)


def oct_scan(path: Path, num_frames: int = 8, **tags: Any) -> Path:
    """Write an OCT volume: B-scans of layered retina with a dip at the fovea."""
    rows, columns = np.meshgrid(np.linspace(0, 1, 160), np.linspace(-1, 1, 256), indexing="ij")
    noise = np.random.default_rng(4)
    frames = np.zeros((num_frames, 160, 256), np.uint8)
    for number in range(num_frames):
        off = abs(number - num_frames / 2) / num_frames
        surface = 0.35 + (0.08 - 0.1 * off) * np.exp(-((columns / 0.2) ** 2))
        frame = noise.rayleigh(14, rows.shape)
        for layer, grey in ((0.0, 150), (0.06, 80), (0.12, 120), (0.2, 60), (0.25, 210), (0.29, 90)):
            frame = np.where(rows > surface * (1 - layer) + 0.55 * layer + layer, grey * 0.8 + frame * 0.2, frame)
        frames[number] = np.clip(np.where(rows > surface + 0.45, noise.rayleigh(20, rows.shape), frame), 0, 255)
    return dicom(path, OCT_IMAGE, "OPT", 1, frames, **{"ImageType": ["ORIGINAL", "PRIMARY"], **tags})


def heartbeat(num_samples: int = 5000, sampling_hz: float = 500.0, bpm: float = 72.0) -> NDArray[np.float64]:
    """Give twelve leads of a regular rhythm in millivolts: float64 [12, T]."""
    time = np.arange(num_samples) / sampling_hz
    phase = (time * bpm / 60) % 1.0

    def wave(centre: float, width: float) -> NDArray[np.float64]:
        return np.exp(-(((phase - centre) / width) ** 2))

    p, q, r, s, t = wave(0.18, 0.025), wave(0.285, 0.008), wave(0.3, 0.011), wave(0.318, 0.009), wave(0.55, 0.045)
    lead_1 = 0.10 * p - 0.05 * q + 0.7 * r - 0.10 * s + 0.20 * t
    lead_2 = 0.15 * p - 0.08 * q + 1.1 * r - 0.20 * s + 0.30 * t
    chest = [
        0.08 * p + size_r * r - size_s * s + 0.25 * t
        for size_r, size_s in ((0.2, 1.0), (0.4, 1.3), (0.7, 1.0), (1.1, 0.6), (1.2, 0.3), (1.0, 0.15))
    ]
    limb = [
        lead_1,
        lead_2,
        lead_2 - lead_1,
        -(lead_1 + lead_2) / 2,
        lead_1 - lead_2 / 2,
        lead_2 - lead_1 / 2,
    ]
    noise = np.random.default_rng(5).normal(0, 0.008, (12, num_samples))
    noise[:6] = 0  # the limb leads keep Einthoven's and Goldberger's identities
    return np.stack([*limb, *chest]) + noise


def ecg_record(folder: Path, name: str = "rhythm", comments: list[str] | None = None) -> Path:
    """Write a WFDB record of 10 s at 500 Hz; gives the header's path."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wfdb uses what pandas has deprecated
        import wfdb

        wfdb.wrsamp(
            name,
            fs=500,
            units=["mV"] * 12,
            sig_name=list(LEADS),
            p_signal=heartbeat().T,
            fmt=["16"] * 12,
            adc_gain=[1000.0] * 12,
            baseline=[0] * 12,
            comments=comments,
            write_dir=str(folder),
        )
    return folder / f"{name}.hea"


def tissue(height: int, width: int, seed: int = 6) -> NDArray[np.uint8]:
    """Draw stained tissue on glass: uint8 [H, W, 3]; two pink pieces with purple nuclei."""
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    noise = np.random.default_rng(seed)
    image = np.full((height, width, 3), 242.0)
    here = _inside(rows, columns, (0.45, 0.32), (0.32, 0.2)) | _inside(rows, columns, (0.6, 0.72), (0.25, 0.16))
    coarse = np.kron(noise.random((height // 16 + 1, width // 16 + 1)), np.ones((16, 16)))[:height, :width]
    image[here] = (np.array([226, 160, 196]) + 24 * (coarse[here][:, None] - 0.5)).clip(0, 255)
    nuclei = np.kron(noise.random((height // 6 + 1, width // 6 + 1)) > 0.82, np.ones((6, 6)))[:height, :width] > 0
    image[here & nuclei] = (106, 66, 142)
    return (image + noise.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def slide(path: Path, height: int = 2048, width: int = 3072, mpp_um: float | None = 0.5, software: str = "") -> Path:
    """Write a whole-slide image: a pyramid of JPEG tiles in a TIFF, with its scale as a resolution tag."""
    import tifffile

    base = tissue(height, width)
    path.parent.mkdir(parents=True, exist_ok=True)
    per_cm = None if mpp_um is None else (1e4 / mpp_um, 1e4 / mpp_um)
    options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    options |= {} if per_cm is None else {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(base, software=software or False, **options)
        for step in (2, 4):
            if per_cm is not None:
                options["resolution"] = (per_cm[0] / step, per_cm[1] / step)
            writer.write(np.ascontiguousarray(base[::step, ::step]), subfiletype=1, software=False, **options)
    return path


def endoscopy_video(path: Path, num_frames: int = 24) -> Path:
    """Write a short endoscopy video: a lit octagon that moves, on black."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = _grid(192)
    field = (np.abs(rows) < 0.85) & (np.abs(columns) < 0.85) & (np.abs(rows) + np.abs(columns) < 1.25)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for number in range(num_frames):
            fold = np.sin(10 * np.hypot(rows, columns - 0.2 * np.sin(number / 4)))
            image = np.zeros((192, 256, 3), np.uint8)
            tint = np.stack([190 + 40 * fold, 90 + 30 * fold, 80 + 25 * fold], axis=2)
            image[:, 32:224] = np.where(field[:, :, None], tint, 0).clip(0, 255)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


PHANTOMS: Mapping[str, Callable[[Path], Path]] = {
    "ct": lambda root: ct_series(root / "ct"),
    "mri": lambda root: mr_volume(root / "mri/brain.nii.gz"),
    "ultrasound": lambda root: ultrasound_cine(root / "ultrasound/loop.dcm"),
    "oct": lambda root: oct_scan(root / "oct/macula.dcm"),
    "ecg": lambda root: ecg_record(root / "ecg"),
    "pathology": lambda root: slide(root / "pathology/slide.tiff"),
    "endoscopy": lambda root: endoscopy_video(root / "endoscopy/colon.mp4"),
}


def main(root: Path) -> None:
    """Write every phantom below a folder."""
    for name, make in PHANTOMS.items():
        print(f"{name}: {make(root)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/make_phantoms.py FOLDER")
    main(Path(sys.argv[1]))
