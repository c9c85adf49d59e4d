"""Weights that do not say how images are treated are refused; what is stated is followed, recorded and travels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from medclip.adapters.registry import preprocessing_of
from medclip.api.models import export_model, import_model
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.choose_pixels import state_pixels
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.pack import load_model, pack_card, read_preprocess
from medclip.runs.units.read_unit import read
from medclip.sample import Modality
from medclip.settings import ReadPolicy, Settings
from tests.kits.layouts import (
    BPE_TEXT,
    MEAN,
    STD,
    VIT,
    add_architecture,
    hub_folder,
    plain_state,
    preset_file,
    random_model,
)

CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bare")
    torch.save(plain_state(random_model(CONFIG)), folder / "bare.pt")
    return folder / "bare.pt", add_architecture(folder / "configs", "tiny-ViT", CONFIG)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that states its pixels."""
    state = plain_state(random_model(CONFIG))
    return hub_folder(tmp_path_factory.mktemp("told"), CONFIG, state, "open_clip_model.safetensors")


def test_bare_weights_are_refused_without_a_word_about_images(bare: tuple[Path, str], tmp_path: Path) -> None:
    source, name = bare
    with pytest.raises(MedclipError, match="come without a file that says how their authors treat images") as caught:
        import_model(source, tmp_path / "pack", architecture=name)
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "pack").exists()
    assert "--preset" in str(caught.value)


def test_the_refusal_names_the_presets_that_fit(tmp_path: Path) -> None:
    config = {**CONFIG, "vision_cfg": VIT | {"image_size": 448}}
    torch.save(plain_state(random_model(config)), tmp_path / "bare.pt")
    name = add_architecture(tmp_path / "configs", "wide-ViT-448", config)
    with pytest.raises(MedclipError, match="presets that fit its 448 px are medsiglip and conch"):
        import_model(tmp_path / "bare.pt", tmp_path / "pack", architecture=name)
    pack = import_model(tmp_path / "bare.pt", tmp_path / "pack", architecture=name, preset="conch")
    assert pack_card(pack).created_from["pixels_from"] == "preset conch"
    preprocess = read_preprocess(pack)
    assert (preprocess.resize, preprocess.size_px) == ("shortest", 448)
    with pytest.raises(
        MedclipError, match="the preset is for images of 224 px; the image tower takes 448 px"
    ) as caught:
        import_model(tmp_path / "bare.pt", tmp_path / "other", architecture=name, preset="chexzero")
    assert "Presets of 448 px are medsiglip and conch" in str(caught.value)


def test_what_is_stated_by_options_is_in_the_pack_and_its_card(bare: tuple[Path, str], tmp_path: Path) -> None:
    source, name = bare
    options: dict[str, Any] = {"resize": "squash:40", "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    pack = import_model(source, tmp_path / "pack", architecture=name, **options)
    preprocess = read_preprocess(pack)
    assert (preprocess.resize, preprocess.resize_px, preprocess.interpolation) == ("squash", 40, "bilinear")
    assert (preprocess.mean, preprocess.std) == (tuple(MEAN), tuple(STD))
    assert preprocess.describe() in " ".join(pack_card(pack).limits)
    with pytest.raises(MedclipError, match="--mean and --std are missing"):
        import_model(source, tmp_path / "other", architecture=name, resize="squash")


def test_a_preset_beside_a_file_is_followed_and_the_card_says_where_they_differ(told: Path, tmp_path: Path) -> None:
    plain = import_model(told, tmp_path / "plain")
    assert pack_card(plain).created_from["pixels_from"] == "the checkpoint's own files"
    assert (read_preprocess(plain).resize, read_preprocess(plain).mean) == ("shortest", tuple(MEAN))
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"size": [32], "resize": "squash", "mean": MEAN, "std": [0.5, 0.5, 0.5]}))
    pack = import_model(told, tmp_path / "pack", preset=own, interpolation="bilinear")
    card = pack_card(pack)
    assert card.created_from["own_file_says"] == {"std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    assert card.created_from["pixels_from"] == "preset own and interpolation as stated"
    assert any("own file says otherwise" in limit for limit in card.limits)
    assert read_preprocess(pack).resize == "squash"


@pytest.mark.parametrize(
    "options",
    [
        {"resize": "stretch"},
        {"resize": "shortest:0"},
        {"resize": "shortest:x"},
        {"mean": [101.5, 101.5, 101.5]},
        {"std": [0.5, 0.5]},
        {"interpolation": "cubic"},
        {"crop": "half"},
        {"preset": "clip"},
    ],
)
def test_a_word_that_is_none_of_the_choices_is_wrong_use(told: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(MedclipError) as caught:
        import_model(told, tmp_path / "pack", **options)
    assert caught.value.reason is Reason.WRONG_USE


def test_a_size_of_the_file_that_is_not_the_towers_is_refused(told: Path) -> None:
    from medclip.models.interchange.choose_pixels import check_pixels
    from medclip.models.interchange.find_source import find_source

    source = find_source(told)
    with pytest.raises(MedclipError, match="for images of 384 px; the image tower takes 32 px") as caught:
        check_pixels(replace(source, preprocess={**source.preprocess, "size": 384}), 32, ())
    assert caught.value.reason is Reason.PACK_INVALID


def test_a_run_that_starts_from_bare_weights_takes_a_preset_too(bare: tuple[Path, str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(torch.load(bare[0], weights_only=True), tmp_path / "w.safetensors")
    with pytest.raises(MedclipError, match=r"model\.preset in a recipe"):
        load_start(tmp_path / "w.safetensors", architecture=bare[1])
    started = load_start(tmp_path / "w.safetensors", architecture=bare[1], preset=preset_file(tmp_path))
    assert (started.preprocess.resize, started.preprocess.std) == ("shortest", tuple(STD))


def test_the_share_that_is_cut_off_stays_when_a_run_takes_larger_images(told: Path, tmp_path: Path) -> None:
    pack = import_model(told, tmp_path / "pack", resize="shortest:36")
    started = load_start(pack, overrides={"vision_cfg": {"image_size": 64}})
    assert (started.preprocess.size_px, started.preprocess.resize_px) == (64, 72)


def test_the_pack_sees_a_png_as_open_clip_does_and_so_does_its_export(told: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "skin.png"
    Image.fromarray(rng.integers(0, 256, (90, 61, 3), dtype=np.uint8)).save(file)
    pack = import_model(told, tmp_path / "pack", modalities=["dermatology"])
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{told}")
    folder = export_model(pack, tmp_path / "out").folder
    again, _, exported = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    ours = load_model(pack).embed_images([file], modality="dermatology")
    for model, change in ((theirs, transform), (again, exported)):
        with torch.inference_mode():
            vector = model.eval().encode_image(change(Image.open(file))[None], normalize=True)  # type: ignore[operator]
        np.testing.assert_allclose(ours, vector.numpy(), atol=1e-5)


def test_an_export_says_what_open_clip_does_otherwise(told: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    values = {"size": [32], "resize": "squash", "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    own.write_text(json.dumps({**values, "resampler": "tensorflow", "centre": "floor", "resize_px": 40}))
    notes = export_model(import_model(told, tmp_path / "a", preset=own), tmp_path / "b").notes
    assert len([note for note in notes if "open_clip" in note]) == 3
    lanczos = export_model(import_model(told, tmp_path / "c", interpolation="lanczos"), tmp_path / "d")
    assert "no lanczos filter" in " ".join(lanczos.notes)
    open_clip.create_model_and_transforms(f"local-dir:{lanczos.folder}")


def test_crop_none_leaves_the_image_whole_and_the_hash_and_the_card_show_it(told: Path, tmp_path: Path) -> None:
    film = np.zeros((120, 100), np.uint8)
    film[30:90, 20:80] = np.random.default_rng(0).integers(60, 256, (60, 60))
    Image.fromarray(film).save(tmp_path / "film.png")
    from medclip.adapters.base import source_of

    source = source_of(tmp_path / "film.png", Settings())
    found = {}
    for crop in ("modality", "none"):
        pack = import_model(told, tmp_path / crop, modalities=["xray"], crop=crop)
        preprocess = read_preprocess(pack)
        reading = read(source, Modality.XRAY, preprocess, Settings())
        found[crop] = reading
        assert preprocess.describe() in " ".join(pack_card(pack).limits)
        assert reading.preprocessing == preprocessing_of("xray", ReadPolicy(crop=preprocess.crop))
        assert load_start(pack).preprocess.crop == crop
    assert [name for name, _ in found["modality"].steps] == [*(n for n, _ in found["none"].steps), "crop border"]
    assert found["modality"].preprocessing != found["none"].preprocessing
    assert np.asarray(found["none"].images[0])[:3].max() == 0
    assert np.asarray(found["modality"].images[0])[:3].max() > 0


def test_the_commands_say_what_was_decided(told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str) -> str:
        assert main(["models", *words]) == 0
        return capsys.readouterr().out

    text = " ".join(printed("import", str(told), "--out", str(tmp_path / "p"), "--resize", "squash").split())
    assert "both sides brought to 32 px whatever the aspect ratio" in text
    assert "Warning: The checkpoint's own file says otherwise and was not followed: resize_mode shortest." in text
    assert "images: Images are taken as the modality is cropped" in " ".join(
        printed("show", str(tmp_path / "p")).split()
    )
    assert {"medsiglip", "virchow2"} <= {preset["name"] for preset in json.loads(printed("presets", "--json"))}
    assert "Commons Clause" in printed("presets")


def test_what_is_stated_becomes_keys_of_the_config() -> None:
    assert state_pixels("shortest:256", [0.1, 0.2, 0.3], None, "lanczos") == {
        "resize_mode": "shortest",
        "resize_px": 256,
        "mean": [0.1, 0.2, 0.3],
        "interpolation": "lanczos",
    }
