"""What every adapter gives for series, loops, slides and records: golden values, and whether it is what it says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import make_phantoms as phantoms
from medclip.adapters.base import Source
from medclip.adapters.registry import ADAPTERS, get_adapter
from medclip.files.recognise.inspect import inspect_file
from medclip.imaging.intensity import to_uint8
from medclip.sample import Kind, Modality, Sample
from medclip.settings import Settings

SETTINGS = Settings()


def _ct(root: Path) -> list[Path]:
    return sorted(phantoms.ct_series(root, num_slices=6, size=48).iterdir())


def _ecg(root: Path) -> list[Path]:
    header = phantoms.ecg_record(root)
    return [header, header.with_suffix(".dat")]


def _slide(root: Path) -> list[Path]:
    """Write a slide whose tiles are deflated: JPEG decoders differ by a grey level, and the digest must not."""
    import tifffile

    base = phantoms.tissue(768, 1024)
    path = root / "slide.tiff"
    root.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 4):
            writer.write(
                np.ascontiguousarray(base[::step, ::step]),
                tile=(256, 256),
                compression="deflate",
                photometric="rgb",
                metadata=None,
                software=False,
                subfiletype=int(step > 1),
                resolution=(20000 / step, 20000 / step),
                resolutionunit="CENTIMETER",
            )
    return [path]


def _loop(make: Callable[..., Path], name: str) -> Callable[[Path], list[Path]]:
    return lambda root: [make(root / name, num_frames=5)]


@dataclass(frozen=True)
class Case:
    """One phantom, and what an adapter makes of it."""

    kind: Kind
    make: Callable[[Path], list[Path]]
    digest: str
    """Of the 8-bit views and the rounded signal; "" for sources that were compressed with loss, where builds of the
    decoder differ."""
    preprocessing: str


# When a change alters pixels, raise the adapter's version (or IMAGING_VERSION): that changes the hash, so that packs
# made before refuse to run with other pixels. Then put the new pair here.
GOLDEN: Mapping[str, Case] = {
    "ct:volume": Case(Kind.VOLUME, _ct, "726a3f484577bf90", "c672bb3d5275b9b8"),
    "mri:volume": Case(
        Kind.VOLUME,
        lambda root: [phantoms.mr_volume(root / "brain.nii.gz", size=32)],
        "194e785f71a19722",
        "d660a8e7286b0f9b",
    ),
    "generic:volume": Case(Kind.VOLUME, _ct, "e2de6f9e3a1df222", "623ed6f1caa901aa"),
    "ultrasound:cine": Case(
        Kind.CINE, _loop(phantoms.ultrasound_cine, "loop.dcm"), "e1dc733865f6686c", "b529c71e7f715b29"
    ),
    "oct:cine": Case(Kind.CINE, _loop(phantoms.oct_scan, "macula.dcm"), "ec1d5bad0cec77f6", "a2621b2ab5cb22b0"),
    "generic:cine": Case(Kind.CINE, _loop(phantoms.oct_scan, "macula.dcm"), "ec1d5bad0cec77f6", "6ac14cfd1e47b8e7"),
    "endoscopy:cine": Case(Kind.CINE, _loop(phantoms.endoscopy_video, "colon.mp4"), "", "7fe8316c4a3950ad"),
    "pathology:slide": Case(Kind.SLIDE, _slide, "e4723b0f038df315", "8357f40dff3d492a"),
    "ecg:signal": Case(Kind.SIGNAL, _ecg, "97bea57f7985233d", "3c893ff17d0ee7d3"),
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    """Read a case's phantom, once for all tests of this file."""

    @cache
    def reading(name: str) -> Sample:
        case = GOLDEN[name]
        paths = case.make(tmp_path_factory.mktemp("phantom") / "in")
        source = Source(case.kind, tuple(paths), tuple(inspect_file(path, SETTINGS) for path in paths))
        return get_adapter(name.partition(":")[0]).read(source, SETTINGS)

    return reading


def _digest(sample: Sample) -> str:
    digest = hashlib.sha256()
    for view in sample.views:
        digest.update(repr(view.pixels.shape).encode() + to_uint8(view).tobytes())
    if sample.signal is not None:
        rounded = np.rint(sample.signal.values_mv * 1e4).astype(np.int64)
        digest.update(repr(rounded.shape).encode() + rounded.tobytes() + sample.signal.mask.tobytes())
    return digest.hexdigest()[:16]


def test_every_kind_of_every_adapter_has_a_golden_value() -> None:
    kinds = {f"{name}:{kind}" for name in ADAPTERS for kind in get_adapter(name).kinds if kind is not Kind.IMAGE}
    assert set(GOLDEN) == kinds


@pytest.mark.parametrize("name", GOLDEN)
def test_pixels_of_a_kind_change_only_together_with_its_hash(name: str, read: Callable[[str], Sample]) -> None:
    case, sample = GOLDEN[name], read(name)
    assert sample.provenance.preprocessing == get_adapter(name.partition(":")[0]).preprocessing_of(case.kind)
    assert (_digest(sample) if case.digest else "", sample.provenance.preprocessing) == (
        case.digest,
        case.preprocessing,
    )


def test_frames_of_a_video_have_their_shape(read: Callable[[str], Sample]) -> None:
    sample = read("endoscopy:cine")
    assert sample.frames is not None
    assert sample.frames.shape[0] == len(sample.views) == 5
    assert {view.pixels.shape for view in sample.views} == {sample.frames.shape[1:]}


def _described(text: str) -> dict[str, Any]:
    """Read what a sentence of `describe` promises of views: channels, types and range, and how many."""
    many = re.search(r"(\d+)(?:-| to )(\d+) views|up to (\d+) views|(1) view", text)
    assert many or "leads" in text, text
    channels = re.findall(r"(?:H x W|\d+ x \d+) x (\d)(?: or (\d))?(?: \(x (\d))?", text)
    pairs = re.findall(r"(uint8|float32) (0-255|0-1)\b", text.split("; frames")[0])
    assert pairs or "leads" in text, text
    return {
        "most": max((int(group) for group in many.groups() if group), default=0) if many else 0,
        "channels": {int(number) for found in channels[:1] for number in found if number},
        "values": {(kind, tuple(float(end) for end in ends.split("-"))) for kind, ends in pairs},
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_a_kind_is_what_its_description_says(name: str, read: Callable[[str], Sample]) -> None:
    case, sample = GOLDEN[name], read(name)
    adapter = get_adapter(name.partition(":")[0])
    text = adapter.describe(case.kind)
    said = _described(text)
    assert sample.kind is case.kind
    assert sample.modality == (None if name.startswith("generic") else Modality(name.partition(":")[0]))
    assert len(sample.views) <= said["most"]
    assert bool(sample.views) is bool(said["most"])
    for view in sample.views:
        assert (str(view.pixels.dtype), view.value_range) in said["values"]
        assert view.pixels.shape[2] in said["channels"]
        assert view.value_range[0] <= view.pixels.min() < view.pixels.max() <= view.value_range[1]
    if sample.volume is not None and "volume in" in text:
        assert sample.volume.unit in text
    if sample.volume is not None and "volume" in text:
        assert str(sample.volume.voxels.dtype) in text
    if sample.frames is not None:
        assert "frames [" in text
        assert (str(sample.frames.dtype), sample.frames.ndim) == ("uint8", 4)
    size = re.search(r"(\d+) x (\d+) x 3, uint8", text)
    if size:
        assert {view.pixels.shape[:2] for view in sample.views} == {(int(size[1]), int(size[2]))}


def test_a_record_is_what_its_description_says(read: Callable[[str], Sample]) -> None:
    signal, text = read("ecg:signal").signal, get_adapter("ecg").describe(Kind.SIGNAL)
    assert signal is not None
    assert "12 leads" in text
    assert f"{signal.sampling_hz:g} Hz, {signal.duration_s:g} s, {signal.values_mv.dtype} mV" in text
    assert signal.values_mv.shape == (12, round(signal.sampling_hz * signal.duration_s))
    assert 0.5 < float(np.abs(signal.values_mv).max()) < 5  # millivolts, not microvolts or volts


@pytest.mark.parametrize("name", [name for name in ADAPTERS if Kind.IMAGE in get_adapter(name).kinds])
def test_a_image_is_what_its_description_says(name: str, tmp_path: Path) -> None:
    from medclip.adapters.base import single
    from tests.kits.files import ramp, write_image

    adapter = get_adapter(name)
    said = _described(adapter.describe(Kind.IMAGE))
    grey = ramp(64, 80) // 2 + 60
    for file, pixels in (
        ("grey.png", grey),
        ("deep.png", grey.astype(np.uint16) * 16),
        ("colour.png", np.stack([grey, grey // 2, grey // 4], axis=2)),
    ):
        path = write_image(tmp_path / file, pixels)
        (view,) = adapter.read(single(path, inspect_file(path, SETTINGS)), SETTINGS).views
        assert (str(view.pixels.dtype), view.value_range) in said["values"]
        assert view.pixels.shape[2] in said["channels"]
        assert view.value_range[0] <= view.pixels.min() < view.pixels.max() <= view.value_range[1]
