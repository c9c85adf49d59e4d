"""Figures of validation within single sources, and the epoch that is chosen by them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from medclip.text.vocabulary.load import load_task
from medclip.training.loop import run_recipe
from medclip.training.result import read_log
from medclip.training.trainer import _merit
from medclip.training.validation import WITHIN, measure

TASK = load_task("fundus_cataract")


def words(texts: Any) -> torch.Tensor:
    """Words that say there is a cataract point one way, those that deny it another."""
    denied = ("no ", "without", "absent", "clear", "sharp")
    return torch.tensor([[0.0, 1.0] if any(word in text for word in denied) else [1.0, 0.0] for text in texts])


def test_a_score_of_the_site_alone_gets_chance_within_sites_and_nearly_all_over_them() -> None:
    sites = np.repeat([0, 1], 40)
    ill = np.concatenate([np.arange(40) % 5 != 0, np.arange(40) % 5 == 0]).astype(float)[:, None]
    images = torch.from_numpy(np.stack([1 - sites, sites], axis=1)).float()
    figures = measure(TASK, images, ill, words, sites)
    assert figures[TASK.name] == pytest.approx(0.8, abs=0.01)
    assert figures[f"{TASK.name}.{WITHIN}"] == pytest.approx(0.5)


def test_sources_that_lack_one_of_the_answers_are_not_judged_and_without_any_there_is_no_figure() -> None:
    ill = np.concatenate([np.ones(20), np.zeros(20)])[:, None]
    sites = np.repeat([0, 1], 20)
    images = torch.eye(2)[torch.from_numpy(sites)]
    assert set(measure(TASK, images, ill, words, sites)) == {TASK.name}
    assert set(measure(TASK, images, ill, words)) == {TASK.name}


def test_of_several_classes_those_are_compared_within_a_source_that_it_has() -> None:
    task = load_task("brain_mri_tumour")
    names = [c.name for c in task.classes]

    def of_class(texts: Any) -> torch.Tensor:
        rows = torch.zeros(len(texts), 4)
        for row, text in enumerate(texts):
            rows[row, next(n for n, c in enumerate(task.classes) if any(p in text for p in c.prompts))] = 1
        return rows

    truth = np.repeat([0, 1, 2, 3], 10)
    sites = np.repeat([0, 1], 20)
    confused = truth.copy()
    confused[30:] = 2  # at the second site the last class is called the third
    figures = measure(task, torch.eye(4)[torch.from_numpy(confused)], truth[:, None].astype(float), of_class, sites)
    assert len(names) == 4
    assert figures[task.name] == pytest.approx(0.75)
    assert figures[f"{task.name}.{WITHIN}"] == pytest.approx((1.0 + 0.5) / 2)


def test_the_best_epoch_is_the_one_with_the_highest_mean_within_sources() -> None:
    figures = {"val_loss": 1.0, "zero_shot.a": 0.9, WITHIN: 0.7}
    assert _merit(figures, WITHIN) == -0.7
    assert _merit(figures) == 1.0
    assert _merit({"val_loss": 1.0}, WITHIN) == math.inf


def test_a_run_logs_figures_within_sources_and_keeps_the_best_epoch_by_them(
    recipe: dict[str, Any], tmp_path: Any
) -> None:
    recipe["train"] |= {"zero_shot": ["chest_xray_findings"], "export": "best", "best_by": WITHIN, "ema": 0}
    recipe["data"]["max_val"] = 8
    recipe["objective"] = {"other_source": "ignored"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medclip.training.validation._FEWEST", 2)
        result = run_recipe(recipe, out=tmp_path / "run")
    logged = [entry for entry in read_log(tmp_path / "run" / "log.jsonl") if entry["kind"] == "val"]
    assert all(entry[WITHIN] == entry[f"zero_shot.chest_xray_findings.{WITHIN}"] for entry in logged)
    # All are of one source, so that within it is the same as over all.
    assert [e[f"zero_shot.chest_xray_findings.{WITHIN}"] for e in logged] == [
        e["zero_shot.chest_xray_findings"] for e in logged
    ]
    assert (tmp_path / "run" / "best.safetensors").is_file()
    assert result.pack is not None
