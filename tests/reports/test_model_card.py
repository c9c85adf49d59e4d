"""What a report prints of a card: the figure below an answer says what it was measured on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from medclip.reports.model_card import TaskView, view_card


def _figure(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "num_images": 50, "chance": 0.5, **more}


def _task(name: str, metrics: dict[str, Any]) -> TaskView:
    card = SimpleNamespace(name="tiny", version="1", tasks={name: {"classes": [], "metrics": metrics}})
    return view_card(card).tasks[0]


def test_images_whose_patients_nobody_knows_are_called_images() -> None:
    known, unknown = _figure(0.8, num_patients=30), _figure(0.8, num_patients=None)
    for figure, unseen in ((known, "patients"), (unknown, "images")):
        task = _task("chest_xray_view", {"balanced_accuracy": {"zero_shot": figure}})
        assert task.summary == f"balanced accuracy 0.80 (0.70 to 0.90) on unseen {unseen}"


def test_a_task_of_a_few_findings_names_the_figure_of_each() -> None:
    figures = {name: {"zero_shot": _figure(value, num_patients=9)} for name, value in (("norm", 0.8), ("sttc", 0.7))}
    assert _task("ecg_superclass", {"auroc": figures}).summary == (
        "AUROC: Normal ECG 0.80 (0.70 to 0.90), ST-T changes 0.70 (0.60 to 0.80) on unseen patients"
    )


def test_of_many_findings_and_of_a_mean_over_them_the_first_figure_stands() -> None:
    many = {f"finding_{n}": {"zero_shot": _figure(0.8, num_patients=9)} for n in range(5)}
    assert _task("x", {"auroc": many}).summary == "AUROC, finding 0 0.80 (0.70 to 0.90) on unseen patients"
    mean = {"macro_auroc": {"zero_shot": _figure(0.9, num_patients=9)}, "auroc": {"a": {"zero_shot": _figure(0.8)}}}
    assert _task("x", mean).summary.startswith("AUROC, mean over classes 0.90")


def test_figures_of_one_source_or_view_are_named_as_this_models_own() -> None:
    own = {"zero_shot": _figure(0.8), "linear_probe": _figure(0.7), "zero_shot_nih_cxr_only": _figure(0.6)}
    (metric,) = _task("chest_xray_view", {"balanced_accuracy": own}).metrics
    assert metric.baselines == "linear probe 0.70 (0.60 to 0.80); this model on nih_cxr alone 0.60 (0.50 to 0.70)"
