"""A tower that timm saved gives timm's own features of an image, from the file to the vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from medclip.api.models import export_model, import_model
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.pack import check_pack, load_model, pack_card
from tests.kits.image_towers import (
    GATED,
    MEAN,
    SMALL,
    STD,
    colour_png,
    embedded,
    save_timm,
    timm_pixels,
    unit,
)

UNI: dict[str, Any] = {**SMALL, "img_size": 32, "patch_size": 8, "init_values": 1e-5, "dynamic_img_size": True}
UNI2: dict[str, Any] = {
    **UNI,
    **GATED,
    "patch_size": 8,
    "mlp_ratio": 2.66667 * 2,
    "reg_tokens": 8,
    "no_embed_class": True,
}
VIRCHOW2: dict[str, Any] = {**UNI, **GATED, "mlp_ratio": 5.3375, "reg_tokens": 4, "global_pool": ""}
PIXELS = {"input_size": (3, 32, 32), "mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 1.0}


def refusal(source: Path, out: Path, **options: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        import_model(source, out, **options)
    assert not out.exists()
    return caught.value


@pytest.mark.parametrize(
    ("name", "arguments", "pixels"),
    [
        pytest.param("vit_large_patch16_224", UNI, PIXELS, id="UNI"),
        pytest.param("vit_giant_patch14_224", UNI2, PIXELS, id="UNI2"),
        pytest.param("vit_giant_patch14_reg4_dinov2", {**SMALL, "img_size": 28}, None, id="H-optimus"),
        pytest.param("vit_tiny_patch16_224", {"img_size": 32, "num_classes": 3, "global_pool": "avg"}, None, id="mean"),
        pytest.param("vit_base_patch16_siglip_224", {**SMALL, "img_size": 32}, None, id="attention pool"),
        pytest.param("test_resnet", {"num_classes": 5}, {"crop_pct": 0.875, "interpolation": "bicubic"}, id="CNN"),
    ],
)
def test_features_are_timms_from_the_same_png(
    name: str, arguments: dict[str, Any], pixels: dict[str, Any] | None, tmp_path: Path
) -> None:
    theirs = save_timm(tmp_path / "source", name, pixels, **arguments)
    image = colour_png(tmp_path / "image.png")
    pack = import_model(tmp_path / "source", tmp_path / "pack", license="CC BY-NC-ND 4.0")
    batch = timm_pixels(theirs, image)
    if theirs.num_classes:
        theirs.reset_classifier(0)
    with torch.inference_mode():
        expected = unit(theirs(batch))
    np.testing.assert_allclose(embedded(pack, image), expected, atol=1e-5)
    assert not check_pack(pack).has_text
    assert pack_card(pack).created_from["layout"] == "timm_folder"


def test_virchows_class_token_stands_beside_the_mean_of_its_patches(tmp_path: Path) -> None:
    theirs = save_timm(tmp_path / "source", "vit_huge_patch14_224", PIXELS, **VIRCHOW2)
    image = colour_png(tmp_path / "image.png")
    assert "--pooling" in str(refusal(tmp_path / "source", tmp_path / "pack"))
    pack = import_model(tmp_path / "source", tmp_path / "pack", pooling="token+mean")
    with torch.inference_mode():
        tokens = theirs(timm_pixels(theirs, image))
    assert tokens.shape == (1, 1 + 4 + 16, 24)
    expected = unit(torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=-1))
    np.testing.assert_allclose(embedded(pack, image), expected, atol=1e-5)
    assert load_model(pack).dim == 48


def test_a_bare_state_dict_is_taken_by_timms_name_or_its_config(tmp_path: Path) -> None:
    theirs = save_timm(tmp_path / "source", "vit_large_patch16_224", PIXELS, **UNI)
    image = colour_png(tmp_path / "image.png")
    torch.save(theirs.state_dict(), tmp_path / "uni.bin")
    pack = import_model(tmp_path / "uni.bin", tmp_path / "pack", architecture=str(tmp_path / "source" / "config.json"))
    with torch.inference_mode():
        expected = unit(theirs(timm_pixels(theirs, image)))
    np.testing.assert_allclose(embedded(pack, image), expected, atol=1e-5)
    plain = save_timm(tmp_path / "plain", "test_vit")
    save_file(plain.state_dict(), tmp_path / "test_vit.safetensors")
    bare = refusal(tmp_path / "test_vit.safetensors", tmp_path / "by_name", architecture="test_vit")
    assert "--preset" in str(bare)
    assert "no preset fits" in str(bare)
    by_name = import_model(
        tmp_path / "test_vit.safetensors",
        tmp_path / "by_name",
        architecture="test_vit",
        resize="squash",
        mean=MEAN,
        std=STD,
    )
    plain.reset_classifier(0)
    model = load_model(by_name)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 160, 160, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = unit(plain(model.normalise(pixels)))
    np.testing.assert_allclose(model.encode_image(pixels)[0], expected, atol=1e-5)


def test_it_goes_back_to_timm_bit_by_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = save_timm(tmp_path / "source", "vit_large_patch16_224", PIXELS, **UNI)
    pack = import_model(tmp_path / "source", tmp_path / "pack")
    assert main(["models", "export", str(pack), "--out", str(tmp_path / "exported")]) == 0
    assert "timm.create_model('local-dir:" in capsys.readouterr().out
    again = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True).eval()
    image = colour_png(tmp_path / "image.png")
    with torch.inference_mode():
        assert torch.equal(again(timm_pixels(again, image)), theirs(timm_pixels(theirs, image)))
    save_timm(tmp_path / "virchow", "vit_huge_patch14_224", PIXELS, **VIRCHOW2)
    notes = " ".join(
        export_model(
            import_model(tmp_path / "virchow", tmp_path / "v", pooling="token+mean"), tmp_path / "virchow_exported"
        ).notes
    )
    assert "mlp_layer=timm.layers.SwiGLUPacked" in notes
    assert "the class token beside the mean" in notes


def test_what_is_said_of_an_exports_pixels_is_what_timm_does_otherwise(tmp_path: Path) -> None:
    save_timm(tmp_path / "source", "vit_large_patch16_224", {**PIXELS, "crop_mode": "border"}, **UNI)
    image = colour_png(tmp_path / "image.png")
    pack = import_model(tmp_path / "source", tmp_path / "pack")
    exported = export_model(pack, tmp_path / "exported")
    assert exported.notes == ()
    again = timm.create_model(f"local-dir:{exported.folder}", pretrained=True).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(embedded(pack, image), unit(again(timm_pixels(again, image))), atol=1e-5)
    own = tmp_path / "own.yaml"
    values = {"size": 32, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    own.write_text(json.dumps({**values, "resize": "longest", "centre": "floor", "resampler": "torchvision"}))
    notes = " ".join(export_model(import_model(tmp_path / "source", tmp_path / "b", preset=own), tmp_path / "c").notes)
    assert "the mean colour, medclip with black" in notes
    assert "timm's centre is one pixel further" in notes
    assert "not with that of torchvision" in notes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_args": {"img_size": True}, "pretrained_cfg": {"input_size": None}}, "'True' wide"),
        ({"model_args": {"img_size": "32"}, "pretrained_cfg": {"input_size": None}}, "'32' wide"),
        ({"pretrained_cfg": {"input_size": [3, "32", "32"]}}, "no number of pixels"),
        ({"pretrained_cfg": {"input_size": []}}, "input_size is"),
        ({"model_args": {"norm_eps": "small"}}, "norm_eps is 'small'"),
        ({"model_args": {"global_pool": ["avg"]}}, "--pooling"),
        ({"pretrained_cfg": {"mean": [10**400] * 3}}, "preprocess_cfg.mean"),
    ],
)
def test_settings_of_another_kind_are_refused_with_their_name(
    changes: dict[str, dict[str, Any]], sentence: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    save_timm(source, "vit_large_patch16_224", PIXELS, **UNI)
    config = json.loads((source / "config.json").read_text())
    for part, values in changes.items():
        config[part] |= values
    (source / "config.json").write_text(json.dumps(config))
    error = refusal(source, tmp_path / "pack")
    assert error.reason is Reason.PACK_INVALID
    assert sentence in str(error)


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_timm(source, "vit_large_patch16_224", PIXELS, **UNI)
    config = json.loads((source / "config.json").read_text())

    def written(**changes: Any) -> Path:
        (source / "config.json").write_text(json.dumps({**config, **changes}))
        return source

    other = refusal(written(model_args={**config["model_args"], "embed_dim": 48}), tmp_path / "pack")
    assert other.reason is Reason.PACK_INVALID
    assert "do not fit the architecture" in str(other)
    unknown = refusal(written(architecture="vit_large_patch16_2244"), tmp_path / "pack")
    assert "timm has no tower of its name" in str(unknown)
    for key in ("model_args", "pretrained_cfg"):
        assert f"its {key} is no table" in str(refusal(written(**{key: 3}), tmp_path / "pack"))
    odd = {**config["pretrained_cfg"], "input_size": [3, 33, 33]}
    assert "33 pixels wide, which is no multiple" in str(refusal(written(pretrained_cfg=odd), tmp_path / "pack"))
    state = load_file(source / "model.safetensors")
    state["blocks.1.norm1.weight"][3] = float("nan")
    save_file(state, source / "model.safetensors")
    assert refusal(written(), tmp_path / "pack").reason is Reason.NON_FINITE


def test_there_is_nothing_to_train_with_words(tmp_path: Path) -> None:
    save_timm(tmp_path / "source", "vit_large_patch16_224", PIXELS, **UNI)
    assert "Leave --text-folder out" in str(refusal(tmp_path / "source", tmp_path / "pack", text_folder=tmp_path))
    with pytest.raises(MedclipError, match="an image tower alone") as caught:
        load_start(tmp_path / "source")
    assert caught.value.reason is Reason.WRONG_USE
