"""Each back-end computes what torch computes in float32, as closely as its type of numbers allows."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import TokenBudget
from medclip.models.backends.known import BACKENDS
from medclip.models.backends.load import load_backend, make_graph, refuse_misfit
from medclip.models.model import Model
from tests.models.conftest import SIZE, random_clip, tiny_config

LEAST_COSINE = {
    "bf16": 0.9995,
    "onnx": 0.9999,
    "onnx-int8": 0.999,
    "openvino": 0.9999,
    "openvino-bf16": 0.9995,
    "openvino-int8": 0.999,
}
"""Of `quantised_inference.md`, for random weights."""


def backend_or_skip(name: str) -> None:
    if lacking := BACKENDS[name].lacking():
        pytest.skip(lacking)


def images_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def loaded(models: dict[str, Model]) -> dict[tuple[str, str], Model]:
    """Each model with each back-end that this machine has; both of the same graph where the graph is the same."""
    has_onnx = not BACKENDS["onnx"].lacking()
    plain = {tower: make_graph(model, BACKENDS["onnx"]) if has_onnx else None for tower, model in models.items()}
    return {
        (name, tower): load_backend(
            model, BACKENDS[name], make_graph(model, BACKENDS[name], plain=plain[tower], images=images_of(16, 7))
        )
        for name in LEAST_COSINE
        if not BACKENDS[name].lacking()
        for tower, model in models.items()
    }


@pytest.mark.parametrize("tower", ["conv", "vit"])
@pytest.mark.parametrize("name", LEAST_COSINE)
def test_a_backend_gives_the_vectors_of_float32(
    name: str, tower: str, models: dict[str, Model], loaded: dict[tuple[str, str], Model]
):
    backend_or_skip(name)
    images = images_of(8)
    expected = models[tower].encode_image(images)
    for n in (1, 3, 8):
        vectors = loaded[name, tower].encode_image(images[:n], batch_size=n)
        assert vectors.shape == (n, models[tower].dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert (vectors * expected[:n]).sum(1).min() >= LEAST_COSINE[name]


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_backend_that_says_float32_computes_in_float32(
    name: str, models: dict[str, Model], loaded: dict[tuple[str, str], Model]
):
    """OpenVINO takes bfloat16 unasked where the processor has it."""
    backend_or_skip(name)
    for tower, model in models.items():
        assert np.abs(loaded[name, tower].encode_image(images_of(4)) - model.encode_image(images_of(4))).max() <= 1e-4


@pytest.mark.parametrize("name", LEAST_COSINE)
def test_the_vector_of_an_image_does_not_depend_on_its_neighbours(name: str, loaded: dict[tuple[str, str], Model]):
    """Scales of int8 activations are taken from all that is computed at once: a bright neighbour would change them."""
    backend_or_skip(name)
    images, others = images_of(4), np.full((4, SIZE, SIZE, 3), 255, np.uint8)
    others[2] = images[2]
    for tower in ("conv", "vit"):
        model = loaded[name, tower]
        assert np.array_equal(model.encode_image(images)[2], model.encode_image(others)[2])


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_backend_computes_in_several_threads_at_once(name: str, loaded: dict[tuple[str, str], Model]):
    backend_or_skip(name)
    model, batches = loaded[name, "vit"], [images_of(4, seed) for seed in range(8)]
    alone = [model.encode_image(images) for images in batches]
    with ThreadPoolExecutor(4) as threads:
        assert all(map(np.array_equal, alone, threads.map(model.encode_image, batches)))


def test_the_first_batches_of_openvino_may_come_from_several_threads_at_once(models: dict[str, Model]):
    """It hung here: two threads that were the first to compute waited for each other."""
    backend_or_skip("openvino")
    graph = make_graph(models["conv"], BACKENDS["openvino"])
    batches = [images_of(4, seed) for seed in range(4)]
    expected = [models["conv"].encode_image(images) for images in batches]
    for _ in range(10):
        model = load_backend(models["conv"], BACKENDS["openvino"], graph)
        with ThreadPoolExecutor(4) as threads:
            for mine, theirs in zip(expected, threads.map(model.encode_image, batches), strict=True):
                np.testing.assert_allclose(theirs, mine, atol=1e-4)


def test_a_backend_leaves_words_and_the_model_itself_as_they_are(
    models: dict[str, Model], loaded: dict[tuple[str, str], Model]
):
    backend_or_skip("onnx")
    model = models["vit"]
    before = model.encode_image(images_of(2))
    assert np.array_equal(loaded["onnx", "vit"].encode_text(["pneumonia"]), model.encode_text(["pneumonia"]))
    assert np.array_equal(model.encode_image(images_of(2)), before)


def test_the_same_tower_gives_the_same_graph(models: dict[str, Model]):
    backend_or_skip("onnx")
    assert make_graph(models["vit"], BACKENDS["onnx"]) == make_graph(models["vit"], BACKENDS["onnx"])


def test_a_graph_in_int8_is_less_than_a_third_of_that_in_float32(models: dict[str, Model]):
    backend_or_skip("onnx-int8")
    config = tiny_config(400)
    config["vision_cfg"] = {"image_size": SIZE, "layers": 2, "width": 256, "head_width": 32, "patch_size": 8}
    model = models["vit"]
    wide = Model(random_clip(config), model.tokenizer, model.preprocess, model.card, name="wide", path=model.path)
    graphs = {name: make_graph(wide, BACKENDS[name]) or b"" for name in ("onnx", "onnx-int8")}
    assert 0 < len(graphs["onnx-int8"]) < 0.33 * len(graphs["onnx"])


@pytest.mark.slow
def test_openvino_is_imported_without_its_telemetry():
    """It forks a process that posts to google-analytics.com, from a thread, when it is imported."""
    backend_or_skip("openvino")
    program = """
import sys, threading
calls = []
sys.addaudithook(lambda event, args: calls.append(event) if event in ("socket.getaddrinfo", "os.fork") else None)
from medclip.models.backends.onnx_graph import import_openvino
import_openvino().Core().available_devices
assert sys.modules["openvino_telemetry"] is None
assert not calls, calls
assert threading.active_count() == 1, threading.enumerate()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_layers_of_most_relevance_stay_in_float32_and_vectors_are_closer_for_it(models: dict[str, Model]):
    backend_or_skip("onnx-mixed")
    import onnx

    model, images = models["vit"], images_of(12)
    plain = make_graph(model, BACKENDS["onnx"])
    graphs = {
        name: make_graph(model, BACKENDS[name], plain=plain, images=images[:4]) or b""
        for name in ("onnx-int8", "onnx-mixed")
    }
    num_int8 = {
        name: sum(node.op_type == "MatMulInteger" for node in onnx.load_from_string(graph).graph.node)
        for name, graph in graphs.items()
    }
    assert 0 < num_int8["onnx-mixed"] < num_int8["onnx-int8"]
    expected = model.encode_image(images)
    away = {
        name: 1 - (load_backend(model, BACKENDS[name], graph).encode_image(images) * expected).sum(1).mean()
        for name, graph in graphs.items()
    }
    assert away["onnx-mixed"] < away["onnx-int8"]
    with pytest.raises(MedclipError, match="class token"):
        make_graph(models["conv"], BACKENDS["onnx-mixed"], images=images[:4])


@pytest.mark.parametrize("name", ["tome", "pitome"])
def test_merged_tokens_give_vectors_of_a_transformer_alone(name: str, models: dict[str, Model]):
    merged, images = load_backend(models["vit"], BACKENDS[name]), images_of(8)
    expected, vectors = models["vit"].encode_image(images), merged.encode_image(images)
    assert not np.array_equal(vectors, expected)
    assert (vectors * expected).sum(1).min() > 0.9
    others = np.full((4, SIZE, SIZE, 3), 255, np.uint8)
    others[2] = images[2]
    assert np.array_equal(merged.encode_image(images[:4])[2], merged.encode_image(others)[2])
    with pytest.raises(MedclipError, match="class token"):
        load_backend(models["conv"], BACKENDS[name])


def test_the_back_end_of_torch_is_the_model_itself(models: dict[str, Model]):
    assert load_backend(models["conv"], BACKENDS["eager"]) is models["conv"]


def test_a_model_of_any_aspect_ratio_or_on_another_device_is_refused(models: dict[str, Model]):
    model = models["vit"]
    ratios = Model(
        model.clip,
        model.tokenizer,
        replace(model.preprocess, budget=TokenBudget(16, 16)),
        model.card,
        name="ratios",
        path=model.path,
    )
    for other, part in ((ratios, "any aspect ratio"), (_on(model, "meta"), "the device meta")):
        with pytest.raises(MedclipError, match=part) as caught:
            refuse_misfit(other, BACKENDS["bf16"])
        assert caught.value.reason is Reason.WRONG_USE
        refuse_misfit(other, BACKENDS["eager"])


@pytest.mark.parametrize("name", ["bf16", "bf16-compiled"])
def test_a_card_without_bfloat16_is_refused(name: str, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch):
    model = _on(models["vit"], "cuda:1")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(MedclipError, match="the card cuda:1 has no bfloat16"):
        refuse_misfit(model, BACKENDS[name])
    refuse_misfit(model, BACKENDS["compiled"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    refuse_misfit(model, BACKENDS[name])


def _on(model: Model, device: str) -> Model:
    other = model.with_image_tower(model.image_tower)
    other.device = torch.device(device)
    return other
