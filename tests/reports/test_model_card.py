"""What a report prints of a card: the figure below an answer says what it was measured on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from medclip.reports.model_card import PrintedTask, view_card


def _figure(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "num_images": 50, "chance": 0.5, **more}


def _task(name: str, metrics: dict[str, Any]) -> PrintedTask:
    card = SimpleNamespace(name="tiny", version="1", tasks={name: {"classes": [], "metrics": metrics}})
    return view_card(card).tasks[0]


def test_images_whose_patients_nobody_knows_are_called_images() -> None:
    known, unknown = _figure(0.8, num_patients=30), _figure(0.8, num_patients=None)
    for figure, unseen in ((known, "patients"), (unknown, "images")):
        task = _task("chest_xray_view", {"balanced_accuracy": {"zero_shot": figure}})
        assert task.summary == f"balanced accuracy 0.80 (0.70 to 0.90; chance 0.50) on unseen {unseen}"


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


def test_beside_a_caution_stands_the_figure_within_that_source_and_the_pooled_one_is_called_so() -> None:
    """0.82 over two sources, of which one is at chance, is the figure of neither."""
    within = {"within nih_cxr": _figure(0.86, num_patients=118), "within covid_cxr": _figure(0.46, num_patients=None)}
    only = {"verdict": "within its source only", "sources": ["nih_cxr"], "figures": within}
    entry = {
        "classes": ["pneumonia"],
        "metrics": {"auroc": {"pneumonia": {"zero_shot": _figure(0.82, num_patients=None)}}},
        "sources": {"pneumonia": only},
    }
    card = SimpleNamespace(name="tiny", version="1", tasks={"chest_xray_findings": entry})
    (task,) = view_card(card).tasks
    assert task.summary == "AUROC, Pneumonia, within nih_cxr 0.86 (0.76 to 0.96) on 118 unseen patients"
    assert [(m.name, m.value, m.is_pooled) for m in task.metrics] == [
        ("AUROC, Pneumonia, within nih_cxr", "0.86", False),
        ("AUROC, Pneumonia, over all its sources", "0.82", True),
    ]


def test_of_a_choice_it_is_the_same_measure_within_the_source_where_the_card_has_that() -> None:
    own = {
        "zero_shot": _figure(0.54, num_patients=91),
        "zero_shot_cdd_cesm_only": _figure(0.53, num_patients=57, chance=1 / 3),
    }
    by_source = {"within cdd_cesm": _figure(0.69, num_patients=57)}
    only = {"verdict": "within its source only", "sources": ["cdd_cesm"], "figures": by_source}
    for metrics, summary in (
        (own, "balanced accuracy, within cdd_cesm 0.53 (0.43 to 0.63; chance 0.33) on 57 unseen patients"),
        (own | {"zero_shot_cdd_cesm_only": {}}, "AUROC, mean over classes, within cdd_cesm 0.69 (0.59 to 0.79) on 57"),
    ):
        figures = {key: figure for key, figure in metrics.items() if figure}
        entry = {"classes": ["benign"], "metrics": {"balanced_accuracy": figures}, "sources": {"all": only}}
        card = SimpleNamespace(name="tiny", version="1", tasks={"mammography_malignancy": entry})
        assert view_card(card).tasks[0].summary.startswith(summary)


def test_figures_of_the_runs_own_split_make_a_task_measured() -> None:
    held = SimpleNamespace(figures={})
    card = SimpleNamespace(
        name="tiny", version="1", tasks={"chest_xray_view": {"classes": ["ap"], "metrics": {}}}, held_out=vars(held)
    )
    assert not view_card(card).tasks[0].metrics
    held.figures["chest_xray_view"] = {"balanced_accuracy": {"zero_shot": _figure(0.8, num_patients=9)}}
    assert view_card(card).tasks[0].metrics
