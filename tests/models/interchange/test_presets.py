"""Presets: what they say, which fit a model, and files of one's own."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import CLIP_MEAN, from_config
from medclip.models.interchange.choose_pixels import find_preset, fitting_presets, list_presets

WANTED = [
    "medsiglip",
    "biomedclip",
    "unimed-clip",
    "quiltnet",
    "plip",
    "pubmedclip",
    "monet",
    "chexzero",
    "pathgen-clip",
    "conch",
    "dermlip",
    "rad-dino",
    "uni",
    "uni2",
    "virchow2",
    "openai",
    "open_clip",
    "imagenet",
]


def test_every_preset_can_be_made_and_says_where_it_is_from() -> None:
    presets = list_presets()
    assert [preset.name for preset in presets] == WANTED
    for preset in presets:
        assert preset.source, preset.name
        assert preset.read, preset.name
        assert preset.licence, preset.name
        assert set(preset.towers) <= set(open_clip.list_models()), preset.name
        config = {"model_cfg": {"vision_cfg": {"image_size": preset.size[0]}}, "preprocess_cfg": preset.to_config()}
        assert from_config(config, {}).size_px == preset.size[0]


def test_a_preset_on_the_scale_of_bytes_is_stated_in_units_of_one() -> None:
    config = find_preset("chexzero").to_config()
    assert config["mean"] == pytest.approx([101.48761 / 255] * 3)
    assert config["std"] == pytest.approx([83.43944 / 255] * 3)
    assert config["resize_mode"] == "longest"
    vision = {"model_cfg": {"vision_cfg": {"image_size": 448}}, "preprocess_cfg": find_preset("medsiglip").to_config()}
    medsiglip = from_config(vision, {})
    assert medsiglip.value_range == (-1, 1)
    assert (medsiglip.resize, medsiglip.interpolation, medsiglip.antialias) == ("squash", "bilinear", False)


def test_presets_that_fit_are_those_of_the_side_and_the_tower() -> None:
    assert fitting_presets(448, ()) == ("medsiglip", "conch", "openai", "open_clip")
    assert "chexzero" in fitting_presets(224, ("ViT-B-32", "ViT-B-32-quickgelu"))
    assert "chexzero" not in fitting_presets(224, ("ViT-L-14",))
    assert fitting_presets(96, ()) == ()
    assert fitting_presets(224, (), image_only=True) == ("uni", "uni2", "virchow2", "imagenet")
    assert not {"rad-dino", "uni"} & {*fitting_presets(518, ()), *fitting_presets(224, ())}


def test_the_preset_of_openai_says_what_no_tensor_tells_and_leaves_what_the_architecture_says() -> None:
    config = find_preset("openai").completed({"quick_gelu": False, "text_cfg": {"context_length": 20}})
    assert config == {"quick_gelu": True, "text_cfg": {"context_length": 20, "tokenizer_kwargs": {"clean": "lower"}}}
    with_own_words = {"text_cfg": {"hf_tokenizer_name": "tokenizer"}}
    assert find_preset("open_clip").completed(with_own_words) == with_own_words
    assert find_preset("imagenet").completed(None) is None


def test_an_unknown_name_is_refused_with_those_that_are_close() -> None:
    with pytest.raises(MedclipError, match="Did you mean 'chexzero'") as caught:
        find_preset("chexzro")
    assert caught.value.reason is Reason.WRONG_USE


def test_a_file_of_ones_own_is_a_preset_and_its_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(f"size: 96\nresize: squash\nmean: {list(CLIP_MEAN)}\nstd: [0.2, 0.2, 0.2]\n")
    assert (find_preset(file).name, find_preset(file).size) == ("ours", (96,))
    known = f"size: 96\nresize: squash\nmean: {list(CLIP_MEAN)}\nstd: [1, 1, 1]"
    for text, word in (("size: 96\nresize: stretch", "resize"), (f"{known}\nmeen: 1", "meen"), ("- 1", "keys")):
        file.write_text(text)
        with pytest.raises(MedclipError, match=word) as caught:
            find_preset(file)
        assert caught.value.reason is Reason.RECIPE_INVALID
    with pytest.raises(MedclipError, match="no such"):
        find_preset(tmp_path / "none.yaml")


def test_the_list_shows_itself() -> None:
    presets = list_presets()
    assert "medsiglip" in repr(presets)
    assert list(presets.to_pandas()["name"]) == WANTED
    assert "chexzero" in presets._repr_html_()
