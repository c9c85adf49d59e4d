"""A loaded model gives the same vector for the same image, whoever comes along."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.model import Model, _moved
from medclip.models.packs.card import Card
from medclip.models.packs.image_tower import image_tower_digest
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import load_model, save_pack
from medclip.models.towers.build import default_config
from medclip.models.towers.layers import fold_batch_norm
from medclip.models.towers.view_fusion import ViewFusion
from medclip.sample import View, ViewType
from medclip.text.tokenizers.tokenizer import train_tokenizer
from tests.kits.layouts import TOWERS
from tests.kits.progress import Recorded
from tests.kits.scoring import texture
from tests.models.conftest import CAPTIONS, SIZE, random_clip, tiny_config, xray


@pytest.fixture(scope="module")
def model(_pack: Path) -> Model:
    return load_model(_pack)


def _images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped_tower(model: Model) -> Model:
    """The tower of the shipped model, on small images."""
    config = default_config(vocab_size=400, context_length=16, size_px=SIZE, text_layers=1)
    card = Card(name="random")
    return Model(random_clip(config), model.tokenizer, Preprocess(SIZE), card, name="random", path=Path("random"))


@settings(max_examples=25)
@given(n=st.integers(1, 9), at=st.integers(0, 8), seed=st.integers(0, 1000))
def test_the_vector_of_an_image_does_not_depend_on_its_neighbours_or_its_place(
    shipped_tower: Model, model: Model, n: int, at: int, seed: int
) -> None:
    images = _images(n, seed)
    images[at % n] = _images(1, 99)[0]
    alone, among = (shipped_tower.encode_image(i) for i in (_images(1, 99), images))
    assert np.array_equal(among[at % n], alone[0])
    # A tower with squeeze-excitation: vectorised SiLU rounds its tail differently, so the place shows in the last bit.
    alone, among = (model.encode_image(i) for i in (_images(1, 99), images))
    np.testing.assert_allclose(among[at % n], alone[0], atol=1e-6)


def test_the_vector_of_an_image_in_the_same_place_is_the_same_whatever_lies_beside_it(model: Model) -> None:
    images, others = _images(4), _images(4, 1)
    others[2] = images[2]
    assert np.array_equal(model.encode_image(images)[2], model.encode_image(others)[2])


def test_images_go_to_a_card_through_pinned_memory_and_do_not_wait() -> None:
    class Images:
        calls: list[tuple[object, ...]] = []

        def pin_memory(self) -> Images:
            self.calls.append(("pinned",))
            return self

        def to(self, device: torch.device, *, non_blocking: bool = False) -> Images:
            self.calls.append((device.type, non_blocking))
            return self

    images = Images()
    _moved(images, torch.device("cuda:1"))  # type: ignore[arg-type]
    assert images.calls == [("pinned",), ("cuda", True)]
    plain = torch.zeros(1)
    assert _moved(plain, torch.device("cpu")) is plain


def test_vectors_are_float32_of_unit_norm(model: Model) -> None:
    for vectors in (model.encode_image(_images(3)), model.encode_text(["a", "chest x-ray", ""])):
        assert vectors.dtype == np.float32
        assert vectors.shape == (3, model.dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_images_and_no_texts_give_no_vectors(model: Model) -> None:
    assert model.encode_image(_images(0)).shape == (0, model.dim)
    assert model.encode_text([]).shape == (0, model.dim)


def test_another_batch_size_changes_only_last_bits(model: Model) -> None:
    images = _images(7)
    for size in (1, 3, 16):
        np.testing.assert_allclose(model.encode_image(images, batch_size=size), model.encode_image(images), atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 1), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
    ],
)
def test_other_shapes_and_types_are_wrong_use(model: Model, wrong: np.ndarray) -> None:
    with pytest.raises(MedclipError, match=r"takes uint8 \[N, 64, 64, 3\]") as caught:
        model.encode_image(wrong)
    assert caught.value.reason is Reason.WRONG_USE


def test_one_string_is_one_text(model: Model) -> None:
    assert np.array_equal(model.encode_text("pneumonia"), model.encode_text(["pneumonia"]))
    assert np.array_equal(model.embed_text("pneumonia"), model.encode_text(["pneumonia"]))
    assert model.embed_text([]).shape == (0, model.dim)
    for wrong in ([b"pneumonia"], [["pneumonia"]], [None]):
        with pytest.raises(MedclipError, match="a text is a string; this is of the type"):
            model.embed_text(wrong)  # type: ignore[arg-type]


def test_many_texts_are_embedded_with_progress(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medclip.models.model.TEXTS_AT_ONCE", 3)
    texts, progress = [f"a chest x-ray {n}" for n in range(7)], Recorded()
    np.testing.assert_allclose(model.embed_text(texts, progress=progress), model.encode_text(texts), atol=1e-6)
    assert [step for step, _ in progress.steps] == [3, 3, 1]


def test_similarity_is_the_cosine_or_the_models_own_logit(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = model.encode_image(_images(3)), ["pneumonia", "a fundus photograph"]
    cosines = images @ model.encode_text(texts).T
    np.testing.assert_allclose(model.similarity(images, texts), cosines, atol=1e-6)
    np.testing.assert_allclose(model.similarity(images[0], model.embed_text(texts)), cosines[:1], atol=1e-6)
    np.testing.assert_allclose(model.similarity(images, "pneumonia"), cosines[:, :1], atol=1e-6)
    monkeypatch.setattr(model.clip, "logit_bias", torch.tensor(-10.0), raising=False)
    logits = cosines * model.logit_scale - 10
    np.testing.assert_allclose(model.similarity(images, texts, logits=True), logits, atol=1e-4)
    view = View(texture(0, 90, 120)[:, :, None], (0, 255))
    embedded = model.embed_images([view]) @ model.encode_text(texts).T
    np.testing.assert_allclose(model.similarity([view], texts), embedded, atol=1e-6)
    with pytest.raises(MedclipError, match=rf"vectors of this model have {model.dim} numbers"):
        model.similarity(np.zeros((64, 64), np.float32), texts)


def test_a_model_says_what_it_is_in_one_line(model: Model) -> None:
    assert repr(model) == f"Model(tiny 1, test_efficientnet, {SIZE} px, vectors of 24, images and words, cpu)"


def test_a_sentence_is_encoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.encode_text(["seen before", "seen before"])
    monkeypatch.setattr(model, "clip", None)
    assert np.array_equal(model.encode_text(["seen before"])[0], first[1])


def test_many_sentences_equal_few(model: Model) -> None:
    texts = [f"a chest x-ray number {i}" for i in range(150)]
    many = model.encode_text(texts)
    np.testing.assert_allclose(many[77], model.encode_text(["A chest X-ray number 77"])[0], atol=1e-5)


def test_folding_keeps_the_function_and_removes_every_normalisation() -> None:
    tower: nn.Module = random_clip(tiny_config(100)).visual  # type: ignore[assignment]
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(tower, x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in tower.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), tower(x), atol=1e-4, rtol=1e-4)


def test_a_tower_whose_normalisation_comes_first_is_left_as_it_is() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(torch.relu(self.norm(x)))

    tower = Backwards().eval()
    assert tower.norm.running_mean is not None
    tower.norm.running_mean.fill_(1.0)
    assert fold_batch_norm(tower, torch.randn(1, 3, 8, 8)) is tower


@pytest.mark.parametrize("tower", sorted(TOWERS))
def test_a_model_with_any_kind_of_image_tower_gives_that_towers_vectors(model: Model, tower: str) -> None:
    text = {"context_length": 16, "vocab_size": 400, "width": 16, "heads": 2, "layers": 1}
    clip = random_clip({"embed_dim": 16, "vision_cfg": TOWERS[tower], "text_cfg": text})
    size, mean, std = TOWERS[tower]["image_size"], (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    preprocess = Preprocess(size, mean, std)
    ours = Model(clip, model.tokenizer, preprocess, Card(name="m"), name="m", path=Path("m"))
    images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    pixels = torch.from_numpy((images / 255 - np.array(mean)) / np.array(std)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = clip.encode_image(pixels, normalize=True).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(ours.encode_image(images), expected, atol=1e-5)


def test_preprocessing_letterboxes_any_view_to_the_models_square() -> None:
    view = View(np.linspace(0, 1, 40 * 20, dtype=np.float32).reshape(40, 20, 1), (0.0, 1.0))
    made = Preprocess(32).to_array(view)
    assert made.shape == (32, 32, 3)
    assert made.dtype == np.uint8
    assert not made[:, :7].any()
    assert made[-1, 16].min() > 240


def test_the_digest_changes_with_everything_that_changes_pixels() -> None:
    base = Preprocess()
    others = [Preprocess(225), Preprocess(mean=(0.4, 0.5, 0.5)), Preprocess(adapters={"xray": "1"})]
    assert len({base.digest(), *(o.digest() for o in others)}) == 4
    assert copy.deepcopy(base).digest() == base.digest()


EXAM = (ViewType("R", "CC"), ViewType("L", "CC"), ViewType("R", "MLO"), ViewType("L", "MLO"))


@pytest.fixture(scope="module")
def exam_model(_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A pack whose fusion is as if it had learned."""
    folder = tmp_path_factory.mktemp("fusion")
    train_tokenizer(CAPTIONS * 3, folder / "tokenizer", vocab_size=400, context_length=16)
    config = read_config(_pack)["model_cfg"] | {"fusion": ViewFusion(24).to_config()}
    clip = random_clip(config | {"fusion": None})
    clip.fusion = ViewFusion(24)
    with torch.no_grad():
        for parameter in clip.fusion.parameters():
            parameter.normal_(std=0.3)
    card = Card(name="exams", modalities=("xray",))
    pixels = Preprocess(SIZE, adapters=xray())
    return load_model(save_pack(folder / "exams", clip, folder / "tokenizer", pixels, card, config=config))


def test_a_pack_fuses_the_views_of_an_exam_whatever_their_order(exam_model: Model) -> None:
    features = exam_model.encode_image(_images(4))
    fused, shares = exam_model.fuse(features, EXAM)
    assert fused.dtype == shares.dtype == np.float32
    np.testing.assert_allclose([np.linalg.norm(fused), shares.sum()], 1, atol=1e-6)
    assert np.ptp(shares) > 0.01
    for order in ([3, 1, 0, 2], [2, 3, 1, 0]):
        again, moved = exam_model.fuse(features[order], [EXAM[v] for v in order])
        assert np.array_equal(again, fused)
        assert np.array_equal(moved, shares[order])
    one, alone = exam_model.fuse(features[:1], EXAM[:1])
    assert alone.tolist() == [1.0]
    assert one.shape == (24,)
    assert not np.allclose(one, fused, atol=1e-3)


def test_views_that_cannot_be_fused_are_refused(exam_model: Model, model: Model) -> None:
    features = exam_model.encode_image(_images(2))
    for of, vectors, types in (
        (model, features, EXAM[:2]),
        (exam_model, features, EXAM),
        (exam_model, features[:0], ()),
        (exam_model, features[0], EXAM[:1]),
    ):
        with pytest.raises(MedclipError) as caught:
            of.fuse(vectors, types)
        assert caught.value.reason is Reason.WRONG_USE


def test_the_vector_of_an_image_is_the_same_with_and_without_fusion(exam_model: Model, model: Model) -> None:
    images = _images(3)
    assert np.array_equal(exam_model.encode_image(images), model.encode_image(images))
    assert image_tower_digest(exam_model.path) == image_tower_digest(model.path)
