"""A pack without a text tower loads, embeds and is checked like any other; asked in words it says that it has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import CONFIG_NAME, read_manifest, seal
from medclip.models.packs.pack import check_pack, find_pack, load_model, verify_pack
from medclip.models.packs.words import understands_words
from tests.kits.image_only import SIZE_PX, WIDTH, image_only_pack


@pytest.fixture(scope="module")
def image_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_only_pack(tmp_path_factory.mktemp("image_only") / "pack")


def test_an_image_only_pack_loads_and_embeds(image_only: Path) -> None:
    model = load_model(image_only)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    vectors = model.encode_image(images)
    assert (model.has_text, model.dim) == (False, WIDTH)
    assert vectors.shape == (3, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_asked_in_words_it_says_that_it_has_no_text_tower(image_only: Path) -> None:
    model = load_model(image_only)
    for ask in (lambda: model.encode_text(["a tumour"]), lambda: model.tokenizer):
        with pytest.raises(MedclipError, match="tiles is image only: it has no text tower") as caught:
            ask()
        assert caught.value.reason is Reason.WRONG_USE
        assert "medclip adapt" in str(caught.value)


def test_checking_and_listing_say_that_it_has_no_words(image_only: Path) -> None:
    assert not verify_pack(image_only).has_text
    assert not understands_words(image_only)
    assert understands_words(find_pack("medclip-mini"))
    assert "none: image only" in repr(check_pack(image_only))
    assert "words: understood" in repr(check_pack(find_pack("medclip-mini")))


def test_show_says_image_only(image_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(image_only)]) == 0
    assert "words:       none: image only" in capsys.readouterr().out
    assert main(["models", "verify", str(image_only)]) == 0


def test_a_pack_whose_text_tower_is_no_object_is_still_refused(image_only: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(image_only, tmp_path / "broken"))
    config = json.loads((broken / CONFIG_NAME).read_text())
    config["model_cfg"]["text_cfg"] = "clip"
    (broken / CONFIG_NAME).write_text(json.dumps(config))
    seal(broken, read_manifest(broken).preprocessing)
    with pytest.raises(MedclipError, match="not a model config"):
        verify_pack(broken)
