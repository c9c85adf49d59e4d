"""Names of figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.evaluation.shard_split import RETRIEVAL
from medclip.reports.model_card import task_title

_METRICS = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_auroc": "Mean AUROC",
    "macro_auroc_within": "Mean AUROC within one source",
    "auroc": "AUROC",
    "val_loss": "Loss",
    "supervised_loss": "Loss of the classifier",
    "masked_error": "Squared error of hidden pixels",
    "masked_gain": "Part of the error without a model that is taken away",
    "image_to_text_r1": "Images that find their text first (R@1)",
    "image_to_text_r5": "Images that find their text among five (R@5)",
    "image_to_text_r10": "Images that find their text among ten (R@10)",
    "text_to_image_r1": "Texts that find their image first (R@1)",
    "text_to_image_r5": "Texts that find their image among five (R@5)",
    "text_to_image_r10": "Texts that find their image among ten (R@10)",
}
RIVALS = ("zero_shot", "start")
"""Last words of a metric that name whose figure it is: of the run's own model, of the one it began with."""


def metric_title(name: str) -> str:
    """Return the printed name of a metric, such as "auroc pneumonia zero_shot", without whose figure it is.

    Example:
        >>> metric_title("auroc pleural_thickening zero_shot"), metric_title("macro_auroc")
        ('AUROC, pleural thickening', 'Mean AUROC')
    """
    first, *inner = name.split()
    if inner and inner[-1] in RIVALS:
        inner.pop()
    title = _METRICS.get(first, first.replace("_", " "))
    return ", ".join([title, *(part.replace("_", " ") for part in inner)])


def title(row: Mapping[str, Any]) -> str:
    """Return what a figure is, with its task."""
    metric = metric_title(row["metric"])
    return metric if row["task"] == RETRIEVAL else f"{task_title(row['task'])}: {metric}"
