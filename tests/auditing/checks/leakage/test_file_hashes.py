"""Image files as hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from medclip.auditing.checks.leakage.file_hashes import collected, hash_files, image_hashes
from medclip.imaging.perceptual_hash import VARIANTS, fine_distance, hash_images, look_of_views
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.files import write_dicom, write_image
from tests.kits.leakage import film


def test_files_are_hashed_in_their_order_and_what_cannot_be_read_is_counted(tmp_path: Path):
    png = write_image(tmp_path / "a.png", film(1))
    dicom = write_dicom(tmp_path / "b.dcm", film(2), BurnedInAnnotation="YES", Modality="DX")
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    paths = [png, tmp_path / "c.png", dicom, None, str(png), tmp_path / "gone.png"]
    steps: list[int] = []
    found = hash_files(paths, Modality.XRAY, Settings(workers=1), step=steps.append)
    assert found.sha256[0] == found.sha256[4] == hashlib.sha256(png.read_bytes()).hexdigest()
    assert (found.sha256[2], found.sha256[3]) == (hashlib.sha256(dicom.read_bytes()).hexdigest(), "")
    assert found.rows.tolist() == [0, 2, 4]
    assert found.burned_in == (None, None, True, None, None, None)
    assert found.problems is not None
    assert sum(found.problems.values()) == 3
    assert sum(steps) == 4
    expected = hash_images([film(1), film(2)])
    for row, n in ((0, 0), (4, 0), (2, 1)):
        assert fine_distance(found.variants[0].fine_NW[row], expected.fine_NW[n]) <= 8


def test_images_at_hand_give_the_same_hashes_as_their_views_do():
    images = [film(1, 64, 64), None, film(2, 64, 64)]
    one = image_hashes(["a", "b", ""], iter(images))
    views = [None if p is None else np.stack([np.zeros_like(p), p])[..., None] for p in images]
    other = collected(["a", "b", ""], [None if v is None else look_of_views(v) for v in views])
    assert one.sha256 == other.sha256 == ("a", "b", "")
    assert one.rows.tolist() == other.rows.tolist() == [0, 2]
    assert len(one.variants) == len(VARIANTS)
    for a, b in zip(one.variants, other.variants, strict=True):
        assert np.array_equal(a.coarse_N, b.coarse_N)
        assert np.array_equal(a.fine_NW, b.fine_NW)


def test_nothing_at_all_is_hashed_to_nothing():
    found = hash_files([], Modality.XRAY, Settings(workers=1))
    assert (found.sha256, len(found.rows), found.problems) == ((), 0, {})
    assert len(found.variants[0]) == 0
