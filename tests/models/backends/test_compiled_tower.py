"""A compiled tower computes what torch computes, whichever thread asks and whatever lies beside an image."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn, ones

from medclip.errors import MedclipError, Reason
from medclip.models.backends.known import BACKENDS
from medclip.models.backends.load import CompiledTower, load_backend
from medclip.models.model import Model
from tests.models.conftest import SIZE

pytestmark = [
    pytest.mark.slow,  # a compiler runs
    pytest.mark.skipif(bool(BACKENDS["compiled"].lacking()), reason=BACKENDS["compiled"].lacking() or "-"),
]


def images_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("tower", [pytest.param("conv", marks=pytest.mark.nightly), "vit"])
def test_a_compiled_tower_gives_the_vectors_of_torch_in_any_batch_and_from_any_thread(
    tower: str, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    model = load_backend(models[tower], BACKENDS["compiled"])
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".so", ".cpp", ".pt2")], "no code stays"
    images = images_of(8)
    expected = models[tower].encode_image(images)
    for n in (1, 3, 8):
        np.testing.assert_allclose(model.encode_image(images[:n], batch_size=n), expected[:n], atol=1e-5)
    batches = [images_of(4, seed) for seed in range(8)]
    alone = [model.encode_image(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        assert all(map(np.array_equal, alone, threads.map(model.encode_image, batches)))
    others = np.full((4, SIZE, SIZE, 3), 255, np.uint8)
    others[2] = batches[0][2]
    assert np.array_equal(alone[0][2], model.encode_image(others)[2])
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache)


@pytest.mark.nightly  # of a card
def test_a_tower_in_bfloat16_is_compiled_as_one_in_float32(models: dict[str, Model]) -> None:
    on_cpu = replace(BACKENDS["bf16-compiled"], devices=("cpu",))  # it is for cards; the processor computes it as well
    model, images = load_backend(models["conv"], on_cpu), images_of(8)
    expected = load_backend(models["conv"], replace(BACKENDS["bf16"], flags=())).encode_image(images)
    features = model.encode_image(images)
    assert features.dtype == np.float32
    assert (features * expected).sum(-1).min() > 0.9999
    assert np.abs(features - models["conv"].encode_image(images)).max() > 1e-6  # it is not float32


class _Branches(nn.Module):
    """A tower whose way depends on the pixels: no graph holds it."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 2 if images.sum() > 0 else images


def test_a_tower_that_no_graph_holds_is_refused_in_one_sentence() -> None:
    with pytest.raises(MedclipError, match="cannot be compiled") as refused:
        CompiledTower(_Branches(), ones(2, 3), 1)
    assert refused.value.reason is Reason.PACK_INVALID
