"""Packs that take images at their own aspect ratio: scored, embedded, adapted, stressed and refused as any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.adaptation.data.table import LabelledUnit
from medclip.api.models import export_model
from medclip.api.score import score
from medclip.auditing.checks.stress.image_forms import SPOILT, Patches, Variants
from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import TokenBudget, letterbox
from medclip.models.encoding.unit_reader import UnitReader, encode_units
from medclip.models.inputs.preprocess import Preprocess, from_config
from medclip.models.model import Model
from medclip.models.packs.manifest import CONFIG_NAME, read_config
from medclip.models.packs.pack import load_model
from medclip.sample import Modality
from medclip.scoring.exam_scores import PROBABILITY_STEP
from medclip.settings import Settings
from tests.kits import adapt_tables
from tests.kits.scoring import make_pack, write_png

BUDGET = TokenBudget(16, 20)
SHAPES = ((90, 70), (40, 200), (64, 64), (200, 41), (33, 120), (70, 90))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack with a timm ViT and a budget of 20 tokens."""
    return make_pack(tmp_path_factory.mktemp("packs") / "native", budget=BUDGET)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of different shapes."""
    root = tmp_path_factory.mktemp("films")
    for seed, (height, width) in enumerate(SHAPES):
        write_png(root / f"{seed}.png", seed, height=height, width=width)
    return root


def test_an_image_has_the_same_vector_in_any_batch(native: Path) -> None:
    model, rng = load_model(native), np.random.default_rng(0)
    images = [BUDGET.fit(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in SHAPES]
    together = model.encode_image(images, batch_size=4)
    for batch_size in (1, 3, 8):
        assert np.abs(model.encode_image(images, batch_size=batch_size) - together).max() < 1e-6
    backwards = model.encode_image(images[::-1], batch_size=4)[::-1]
    assert np.abs(backwards - together).max() < 1e-6
    assert len({i.shape for i in images}) > 3


def test_a_folder_has_the_same_probabilities_for_any_batch_size(
    native: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = []
    for batch_size in (4, 1, 5):
        monkeypatch.setitem(Model.__init__.__kwdefaults__ or {}, "batch_size", batch_size)
        run = score(films, model=native, workers=1, modality="xray")
        assert {row["status"] for row in run.files.to_pylist()} == {"scored"}
        scores.append(np.array([row["probability"] for row in run.scores.to_pylist()]))
    assert len(scores[0]) > 6
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=0, atol=1.01 * PROBABILITY_STEP)


def test_the_thumbnail_shows_the_whole_image(native: Path, films: Path) -> None:
    run = score(films, model=native, workers=1, modality="xray")
    assert run.counts["scored"] == len(SHAPES)
    with UnitReader(load_model(native), Settings(workers=1)) as reader:
        (unit,) = reader.read([LabelledUnit(1, films / "1.png", "", Modality.XRAY, None, 0)], lambda _: None)
    assert [image.shape for image in unit.pixels] == [(32, 160, 3)]
    assert np.abs(encode_units(load_model(native), [unit.pixels])[0] - unit.features).max() < 1e-6


def test_square_images_are_the_letterboxs_and_other_models_preprocessing_hash_stays() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    plain, budgeted = Preprocess(64), Preprocess(64, budget=TokenBudget(16, 16))
    assert np.array_equal(budgeted.fit(pixels), plain.fit(pixels))
    assert np.array_equal(plain.fit(pixels), letterbox(pixels, 64))
    assert plain.digest() == "5ec38a03487305aa"
    assert len({plain.digest(), budgeted.digest(), Preprocess(64, budget=TokenBudget(16, 17)).digest()}) == 3


def test_a_pack_round_trips(native: Path) -> None:
    model = load_model(native)
    assert model.preprocess.budget == BUDGET
    assert from_config(read_config(native), model.preprocess.adapters) == model.preprocess
    assert "20 patches of 16 px" in repr(model)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("preprocess_cfg", "max_tokens", 0),
        ("preprocess_cfg", "patch_px", "16"),
        ("preprocess_cfg", "resize_mode", "longest"),
        ("preprocess_cfg", "resize_mode", "squash"),
        ("vision_cfg", "native_aspect", False),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(native: Path, part: str, key: str, value: object) -> None:
    config = json.loads((native / CONFIG_NAME).read_text())
    (config["model_cfg"] if part == "vision_cfg" else config)[part][key] = value
    with pytest.raises(MedclipError) as caught:
        from_config(config, {})
    assert caught.value.reason is Reason.PACK_INVALID


def test_it_is_not_exported_to_open_clip_which_has_no_form_of_it(native: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="own aspect ratio"):
        export_model(native, tmp_path / "out")


def test_images_of_another_size_are_refused(native: Path) -> None:
    model = load_model(native)
    for shape in ((64, 96, 3), (30, 16, 3), (16, 16, 1)):
        with pytest.raises(MedclipError, match="20 patches of 16 px"):
            model.encode_image([np.zeros(shape, np.uint8)])


def test_view_shows_what_the_model_sees(native: Path, films: Path, tmp_path: Path) -> None:
    viewed = medclip.view(films / "1.png", tmp_path / "seen.png", model=native)
    with Image.open(viewed.out) as image:
        assert image.size[0] > 1000


@pytest.mark.parametrize("render", [Variants((SPOILT,)), Patches(SPOILT)])
def test_corrupted_forms_have_the_images_own_shape(native: Path, films: Path, render: Variants | Patches) -> None:
    units = [LabelledUnit(n, films / f"{n}.png", "", Modality.XRAY, None, 0) for n in (1, 3)]
    with UnitReader(load_model(native), Settings(workers=1)) as reader:
        rows = reader.read(units, lambda _: None, render=render)
    assert [len(row.features) for row in rows] == [render.num] * 2
    assert [{image.shape for image in row.pixels} for row in rows] == [{(32, 160, 3)}, {(160, 32, 3)}]
    assert all(np.isfinite(row.features).all() for row in rows)


@pytest.mark.parametrize("tower", ["timm", "open_clip"])
@pytest.mark.parametrize("method", ["svd", "lora", "full", "tip"])
def test_it_is_adapted_on_images_of_any_shape(tmp_path: Path, method: str, tower: str) -> None:
    if tower == "open_clip":
        pack = adapt_tables.make_pack(tmp_path / "pack", budget=TokenBudget(8, 40))
    else:
        pack = make_pack(tmp_path / "pack", budget=BUDGET)
    table = adapt_tables.make_table(tmp_path / "set", patients=9)
    for number, file in enumerate(sorted((tmp_path / "set").rglob("*.png"))):
        with Image.open(file) as image:
            image.resize((48 + 16 * (number % 4), 48)).save(file)
    options = {} if method == "tip" else {"steps": 2}
    run = medclip.adapt(
        table, "finding", out=tmp_path / "out", model=pack, method=method, shots=2, workers=1, overrides=options
    )
    assert "balanced_accuracy" in set(run.to_pandas()["metric"])
    adapted = load_model(tmp_path / "out")
    assert adapted.preprocess.budget is not None
