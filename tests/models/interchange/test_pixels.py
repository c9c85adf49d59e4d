"""What a checkpoint's own files say about its pixels: the tensor is that of the library's own image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms_factory import create_transform
from transformers.models.bit.image_processing_bit import BitImageProcessor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess, from_config
from medclip.models.interchange.pixels import from_open_clip, from_processor, from_timm, read_processor

SIDE = 40
CUT: dict[str, Any] = {"size": {"shortest_edge": 47}, "crop_size": {"height": SIDE, "width": SIDE}}
SQUASHED: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}, "resample": 2}
RAD_DINO: dict[str, Any] = {
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5307] * 3,
    "image_std": [0.2583] * 3,
}


def read(config: dict[str, Any]) -> Preprocess:
    """Make what a pack would have of a `preprocess_cfg`."""
    return from_config({"model_cfg": {"vision_cfg": {"image_size": config["size"]}}, "preprocess_cfg": config}, {})


def noise(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def tensor_of(preprocess: Preprocess, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return ((preprocess.fit(pixels) / 255 - preprocess.mean) / preprocess.std).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(90, 64), (61, 200), (47, 48), (30, 30), (211, 209)])
@pytest.mark.parametrize(
    ("processor", "fast"),
    [
        (CLIPImageProcessorPil(**CUT), False),
        (CLIPImageProcessor(**CUT), True),
        (SiglipImageProcessorPil(**SQUASHED), False),
        (SiglipImageProcessor(**SQUASHED), True),
        (BitImageProcessorPil(**RAD_DINO), False),
        (BitImageProcessor(**RAD_DINO), True),
        (DeiTImageProcessorPil(size={"height": 47, "width": 47}, crop_size=CUT["crop_size"]), False),
        (CLIPImageProcessorPil(**CUT, do_rescale=False, image_mean=[101.5] * 3, image_std=[83.4] * 3), False),
        (
            SiglipImageProcessorPil(**SQUASHED, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3),
            False,
        ),
    ],
)
def test_the_tensor_is_that_of_transformers_own_processor(
    processor: Any, fast: bool, height: int, width: int, channels: int
) -> None:
    pixels = noise(height, width, channels)
    theirs = processor(Image.fromarray(pixels.squeeze()).convert("RGB"), return_tensors="np")["pixel_values"][0]
    config = processor.to_dict()
    if fast:  # as transformers 4 saved it; transformers 5 leaves the word out
        config["image_processor_type"] += "Fast"
    np.testing.assert_allclose(tensor_of(read(from_processor(config)), pixels), theirs, atol=1e-5)


@pytest.mark.parametrize(("version", "resampler"), [("4.57.1", "pillow"), ("5.24.0", "torchvision"), (None, "pillow")])
def test_who_resizes_goes_by_the_transformers_that_saved_a_file_without_the_word_fast(
    tmp_path: Path, version: str | None, resampler: str
) -> None:
    """One grey level in some pixels lies between the two: cosines hold, and vectors of a SigLIP move by 4e-4."""
    CLIPImageProcessor(**CUT).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"transformers_version": version} if version else {}))
    processor: Any = {"pillow": CLIPImageProcessorPil, "torchvision": CLIPImageProcessor}[resampler](**CUT)
    pixels = noise(211, 209, 3)
    theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    preprocess = read(read_processor(tmp_path))
    assert preprocess.resampler == resampler
    np.testing.assert_allclose(tensor_of(preprocess, pixels), theirs, atol=1e-5)


def test_an_old_file_with_a_size_of_one_number_means_what_its_kind_meant() -> None:
    clip = from_processor({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224})
    vit = from_processor({"feature_extractor_type": "ViTFeatureExtractor", "size": 224})
    assert (clip["resize_mode"], clip["interpolation"]) == ("shortest", "bicubic")
    assert (vit["resize_mode"], vit["interpolation"], vit["mean"]) == ("squash", "bilinear", [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"image_processor_type": "Siglip2ImageProcessor", "patch_size": 16}, "leaves out"),
        ({"image_processor_type": "CLIPImageProcessor", "do_resize": False}, "does not resize"),
        ({"image_processor_type": "CLIPImageProcessor", "do_pad": True}, "pads"),
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, "not square"),
        ({"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 224, "width": 200}}, "no square"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 224}}, "longest_edge"),
        ({"image_processor_type": "CLIPImageProcessor", "resample": 9}, "resample"),
        ({"image_processor_type": "CLIPImageProcessor", "resample": "bicubic"}, "resample"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {}}, "size"),
        ({"image_processor_type": "CLIPImageProcessor", "size": [224, 224]}, "no square"),
        ({"image_processor_type": "CLIPImageProcessor", "rescale_factor": 0}, "rescale_factor"),
        ({"image_processor_type": "CLIPImageProcessor", "rescale_factor": "1/255"}, "rescale_factor"),
        ({"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5, "0.5", 0.5]}, "image_mean"),
        ({"image_processor_type": "CLIPImageProcessor", "image_std": [0.5, 0.5]}, "image_std"),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused_with_the_step(config: dict[str, Any], word: str) -> None:
    with pytest.raises(MedclipError, match=word) as caught:
        from_processor(config, Path("m/preprocessor_config.json"))
    assert caught.value.reason is Reason.PACK_INVALID
    assert "--preset" in str(caught.value)


@pytest.mark.parametrize("kind", ["CLIP", "ChineseCLIP", "Bit", "Siglip", "ViT", "DeiT"])
def test_what_a_file_leaves_out_is_as_the_processor_of_its_kind_has_it(kind: str) -> None:
    import transformers

    processor: Any = getattr(transformers, f"{kind}ImageProcessorPil")()
    pixels = noise(230, 301, 3)
    theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    ours = read(from_processor({"image_processor_type": f"{kind}ImageProcessor"}))
    np.testing.assert_allclose(tensor_of(ours, pixels), theirs, atol=1e-5)


def test_a_processor_that_was_saved_together_with_its_tokenizer_is_read(tmp_path: Path) -> None:
    alone = CLIPImageProcessorPil(**CUT).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": alone, "processor_class": "C"}))
    assert read_processor(tmp_path) == from_processor(alone)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "C"}))
    assert read_processor(tmp_path) == {}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_processor_that_is_no_json_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(MedclipError, match="image processor"):
        read_processor(tmp_path)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875])
def test_the_tensor_is_that_of_timms_data_config(crop_pct: float, crop_mode: str) -> None:
    own = {"input_size": (3, SIDE, SIDE), "crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": "bilinear"}
    resolved = timm.data.resolve_data_config(pretrained_cfg=own)  # type: ignore[attr-defined]
    pixels = noise(90, 77, 3)
    transform: Any = create_transform(**resolved)
    theirs = np.asarray(transform(Image.fromarray(pixels)))
    np.testing.assert_allclose(tensor_of(read(from_timm(own)), pixels), theirs, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (1, 224, 224)},
        {"input_size": (3, 224, 192)},
        {"input_size": 224},
        {"crop_mode": "random"},
        {"crop_pct": "1"},
        {"mean": ["0.5"] * 3},
        {"std": [0.5, 0.5]},
    ],
)
def test_timm_models_that_take_other_than_colour_squares_or_state_no_numbers_are_refused(
    config: dict[str, Any],
) -> None:
    with pytest.raises(MedclipError):
        from_timm(config)


def test_open_clips_words_are_completed_as_open_clip_does() -> None:
    assert from_open_clip({"mean": 0.5, "std": [0.5], "interpolation": "random", "size": 224, "mode": "RGB"}) == {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
