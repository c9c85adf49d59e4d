"""What pipelines/breakhis compares: towers, frozen features and where the published figure stands."""

from __future__ import annotations

from collections.abc import Mapping

CNNS: tuple[str, ...] = (
    "vgg16",
    "vgg19",
    "resnet50",
    "resnet101",
    "densenet121",
    "densenet201",
    "inception_v3",
    "legacy_xception",
    "mobilenetv2_100",
    "efficientnet_b0",
    "efficientnet_b3",
)
"""Which ones the study compared is not told; these are usual. All are towers of timm."""
TRANSFORMERS: tuple[str, ...] = (
    "vit_base_patch16_224",
    "vit_base_patch32_224",
    "vit_large_patch16_224",
    "deit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
)
SMOKE: tuple[str, ...] = ("test_resnet", "test_vit")
"""timm's smallest, for a look whether it runs."""

LR: Mapping[str, float] = {"cnn": 1e-4, "transformer": 3e-5}
LR_SCRATCH = 5e-4
"""For towers that begin with random weights."""
LAYER_DECAY: Mapping[str, float] = {"cnn": 1.0, "transformer": 0.75}
WARMUP_EPOCHS = 3
SMOOTHING = 0.1

CONTROL = "random:vit_small_patch16_224"
"""Frozen features of random weights: what a probe finds without any pretraining."""

PUBLISHED_ACCURACY = 0.9515
PUBLISHED = (
    "published (Maistry & Ezugwu 2023), ViT: accuracy 95.15 %. Its split, its task (two classes or eight) and its "
    "magnification are not told: no row here is comparable with it."
)
