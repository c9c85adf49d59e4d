"""What a model is shown of one image under stress."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.auditing.checks.stress.image_forms import Patches, Variants
from medclip.imaging.corruptions import corruptions_of, shuffle_patches
from medclip.models.inputs.preprocess import Preprocess
from medclip.sample import Modality, View

VIEW = View(np.random.default_rng(0).integers(40, 220, (120, 300, 1)).astype(np.uint8), (0.0, 255.0))
CORRUPTIONS = corruptions_of(Modality.XRAY)


def test_at_the_reference_size_the_clean_form_is_what_the_model_is_shown():
    forms = Variants(CORRUPTIONS)([VIEW], "a", Preprocess(224))
    assert forms.shape == (20, 224, 224, 3)
    assert (forms[0] == Preprocess(224).to_array(VIEW)).all()
    assert (forms[1] == forms[0]).all()
    assert all((form != forms[1]).any() for form in forms[2:])


@pytest.mark.parametrize("size", [96, 224, 336])
def test_the_black_around_an_image_stays_black(size: int):
    forms = Variants(CORRUPTIONS)([VIEW], "a", Preprocess(size))
    assert not forms[:, : size // 4].any()


def test_patches_are_shuffled_and_none_is_lost():
    pixels = np.random.default_rng(1).integers(0, 256, (16, 17), np.uint8)
    shuffled = shuffle_patches(pixels, 4, np.random.default_rng(0))
    assert (shuffled != pixels).any()
    assert sorted(shuffled.ravel().tolist()) == sorted(pixels.ravel().tolist())
    assert (shuffled[:, 16] == pixels[:, 16]).all()  # what fills no patch
    assert (shuffle_patches(pixels, 1, np.random.default_rng(0)) == pixels).all()


def test_each_view_has_its_own_noise_and_each_file_too():
    noise = Variants(corruptions_of(Modality.XRAY, ["shot_noise"], [5]))
    one, two = noise([VIEW, VIEW], "a", Preprocess(224)).reshape(2, 6, 224, 224, 3)
    again, other = (noise([VIEW], name, Preprocess(224)) for name in ("a", "b"))
    assert (one == again).all()
    assert (one[3:] != two[3:]).any(axis=(1, 2, 3)).all()  # shuffled in another order
    assert (one[2] != two[2]).any()
    assert (again[2] != other[2]).any()


def test_small_images_are_enlarged_before_they_are_corrupted():
    small = View(np.full((20, 20, 1), 128, np.uint8), (0.0, 255.0))
    noise = Variants(corruptions_of(Modality.XRAY, ["gaussian_noise"], [5]))([small], "a", Preprocess(224))[2]
    assert len(np.unique(noise[:60, :60, 0])) > 50  # grains of the size of pixels, not of the small image's


def test_one_cell_at_a_time_is_spoilt():
    forms = Patches(CORRUPTIONS[2])([VIEW], "a", Preprocess(98))
    assert forms.shape == (50, 98, 98, 3)
    changed = (forms[1:] != forms[0]).any(axis=3)
    assert changed.sum(axis=0).max() == 1
