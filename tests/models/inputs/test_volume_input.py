from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess, from_config
from medclip.models.inputs.volume_input import MAX_CLIPS, VolumeInput, volume_input
from tests.kits.volume_models import SIZE_PX, ct, ct_input, loop, volume_config

CINE = volume_input({"kind": "cine", "num_frames": 8, "tubelet": 2})


def _refusal(taken: VolumeInput, voxels: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        taken.clips(voxels, SIZE_PX)
    return caught.value


def test_a_volume_becomes_clips_of_the_models_size_in_8_bits() -> None:
    clips = ct_input().clips(ct(), SIZE_PX)
    assert clips.shape == (2, 8, SIZE_PX, SIZE_PX, 1)
    assert clips.dtype == np.uint8
    np.testing.assert_array_equal(clips[0, 4:], clips[1, :4])
    assert clips.max() == 255
    assert clips.min() == 0
    # 32 x 32 mm of tissue lie in the middle of 64 x 64 mm, air around them
    assert clips[:, :, 14:18, 14:18].mean() > 100
    assert not clips[:, :, :4].any()


def test_three_channels_repeat_grey_and_one_channel_is_the_luma_of_colour() -> None:
    one, three = ct_input().clips(ct(), SIZE_PX), ct_input(channels=3).clips(ct(), SIZE_PX)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=4))
    coloured = loop(channels=3)
    coloured.values[..., 2] = 0
    np.testing.assert_allclose(CINE.clips(coloured, SIZE_PX).max(), 180 * (0.299 + 0.587), atol=1)


def test_the_same_anatomy_in_other_spacing_gives_nearly_the_same_clip() -> None:
    taken = ct_input(num_frames=4, spacing_mm=[4, 2, 2])
    fine = ct()
    coarse = ct(values=fine.values[:, ::1, ::2].copy(), spacing_mm=(2.0, 0.8, 1.0))
    a, b = (taken.clips(v, SIZE_PX).astype(float) for v in (fine, coarse))
    assert a.shape == b.shape
    assert np.abs(a - b).mean() < 4


def test_a_long_volume_is_covered_evenly_and_by_a_few_clips_at_most() -> None:
    long = ct(values=np.zeros((400, 8, 8), np.int16))
    assert ct_input().places(long) == tuple(n / (MAX_CLIPS - 1) for n in range(MAX_CLIPS))
    middles = [ct_input().part(long, SIZE_PX, at=at).middle[0] for at in ct_input().places(long)]
    assert middles[0] == 3.5
    assert middles[-1] == 395.5
    assert np.allclose(np.diff(middles), 98)
    assert ct_input().places(ct(values=np.zeros((8, 8, 8), np.int16))) == (0.5,)


@pytest.mark.parametrize(
    ("more", "reason", "said"),
    [
        ({"plane": "sagittal"}, Reason.OTHER_ORIENTATION, "slices are sagittal; the model was trained on axial"),
        ({"unit": "relative"}, Reason.OTHER_UNIT, "in relative; the model was trained on values in HU"),
        ({"values": np.zeros((1, 40, 60), np.int16)}, Reason.SINGLE_SLICE, "one slice"),
        ({"values": np.full((12, 40, 60), -1000, np.int16)}, Reason.CONSTANT_IMAGE, "same value"),
        ({"spacing_mm": (2000.0, 800.0, 500.0)}, Reason.NO_SCALE, "2e+03 x 800 x 500 mm; the model takes 2 x 2 x 2 mm"),
        ({"spacing_mm": (2.0, 0.8, 33.0)}, Reason.NO_SCALE, "states a spacing of 2 x 0.8 x 33 mm"),
        ({"spacing_mm": (2e-3, 8e-4, 5e-4)}, Reason.NO_SCALE, "states a spacing of 0.002 x 0.0008 x 0.0005"),
    ],
)
def test_what_the_model_was_not_trained_for_is_refused_in_words(more: Any, reason: Reason, said: str) -> None:
    error = _refusal(ct_input(), ct(**more))
    assert error.reason is reason
    assert said in error.message


def test_thick_slices_and_volumes_within_a_clip_are_taken() -> None:
    ct_input().check(ct(spacing_mm=(30.0, 0.8, 0.5)))
    ct_input().check(ct(spacing_mm=(0.2, 0.08, 0.1)))


def test_a_volume_of_one_value_but_for_a_single_voxel_is_none_of_one_value() -> None:
    values = np.full((12, 40, 60), -1000, np.int16)
    values[6, 21, 31] = 700
    ct_input().check(ct(values=values))


def test_loops_and_volumes_are_not_taken_for_each_other() -> None:
    assert _refusal(ct_input(), loop()).reason is Reason.OTHER_INPUT
    assert _refusal(CINE, ct()).reason is Reason.OTHER_INPUT
    assert "takes loops in time" in _refusal(CINE, ct()).message


def test_a_loop_in_which_nothing_moves_is_refused() -> None:
    assert _refusal(CINE, loop(moving=False)).reason is Reason.FROZEN_LOOP
    assert CINE.clips(loop(), SIZE_PX).shape == (2, 8, SIZE_PX, SIZE_PX, 1)


def test_frames_are_taken_by_time_where_the_model_knows_time() -> None:
    timed = replace(CINE, frame_ms=80.0)
    clips = timed.clips(loop(16), SIZE_PX)
    np.testing.assert_array_equal(clips[0], CINE.clips(replace(loop(16), values=loop(16).values[1::2]), SIZE_PX)[0])
    assert _refusal(timed, replace(loop(16), frame_ms=None)).reason is Reason.NO_SCALE


def test_without_a_window_the_volumes_own_percentiles_are_black_and_white() -> None:
    mri = volume_input({"num_frames": 8, "tubelet": 2, "spacing_mm": [2, 2, 2], "unit": "relative"})
    bright = ct(unit="relative", values=np.abs(ct().values))
    twice = ct(unit="relative", values=2 * np.abs(ct().values))
    np.testing.assert_array_equal(mri.clips(bright, SIZE_PX), mri.clips(twice, SIZE_PX))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "spacing_mm"),
        ({"spacing_mm": [1, 1]}, "3 finite numbers"),
        ({"spacing_mm": [1, 0, 1]}, "above 0"),
        ({"spacing_mm": [1, 1, 1], "num_frames": 9}, "no multiple"),
        ({"spacing_mm": [1, 1, 1], "window": [5, 5]}, "black below white"),
        ({"spacing_mm": [1, 1, 1], "plane": "upright"}, "plane"),
        ({"spacing_mm": [1, 1, 1], "channels": 2}, "1 or 3"),
        ({"kind": "cine", "plane": "axial"}, "neither spacing_mm nor plane"),
        ({"kind": "film"}, "volume or cine"),
        ({"spacing_mm": [1, 1, 1], "slices": 3}, "'slices' is not known"),
    ],
)
def test_settings_that_are_none_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        volume_input(values)


def test_settings_stand_in_the_pack_and_come_back() -> None:
    for taken in (ct_input(), replace(CINE, frame_ms=40.0), ct_input(plane="coronal", window=None, unit="relative")):
        preprocess = Preprocess(SIZE_PX, volume=taken)
        config = {"model_cfg": volume_config(taken), "preprocess_cfg": preprocess.to_config()}
        assert from_config(config, {}) == preprocess
        assert preprocess.digest() != Preprocess(SIZE_PX).digest()
    assert "clips of 8 x 32 x 32 axial voxels" in Preprocess(SIZE_PX, volume=ct_input()).describe()


def test_a_tower_and_settings_that_do_not_agree_are_refused() -> None:
    config = {"model_cfg": volume_config(ct_input()), "preprocess_cfg": Preprocess(SIZE_PX).to_config()}
    other = Preprocess(SIZE_PX, volume=ct_input(num_frames=4)).to_config()
    for wrong in (config, {**config, "preprocess_cfg": other}):
        with pytest.raises(MedclipError, match="do not agree") as caught:
            from_config(wrong, {})
        assert caught.value.reason is Reason.PACK_INVALID


def test_digests_of_models_of_images_are_what_they_were() -> None:
    assert Preprocess().digest() == "90b9182b2f73cee1"
    assert "volume" not in Preprocess().to_config()
