"""The page of a run: the worst first, curves that follow dark mode, and nothing loaded, run or named."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medclip.models.packs.card import Card, Source, SplitFigures
from medclip.reports import pretrain as page
from medclip.reports.model_card import metric_title
from medclip.reports.pretrain import learning, write_pretrain_report
from medclip.reports.pretrain_findings import History, findings
from medclip.training.recipe.schema import Recipe, load_recipe
from medclip.training.reconstructions import Reconstruction
from medclip.training.result import PretrainResult
from tests.kits.pages import lines_of, run_together

HOSTILE = "<script>alert('x')</script>"


def _log(num_steps: int = 20, **changes: Any) -> list[dict[str, Any]]:
    """A run that learns: the loss falls, twice validated."""
    entries: list[dict[str, Any]] = [{"kind": "note", "step": 0, "note": f"an epoch has only 10 batches {HOSTILE}"}]
    for step in range(1, num_steps + 1):
        entries.append(
            {
                "kind": "step",
                "step": step,
                "loss": 4 / step,
                "lr": 1e-3,
                "scale": 14.0,
                "images_s": 90.0,
                "data_wait": 0.01,
            }
            | changes
        )
        if step % 10 == 0:
            figures = {"val_loss": 3 / step, "image_to_text_r1": 0.3, "text_to_image_r1": 0.2, "chance_r1": 0.1}
            entries.append({"kind": "val", "step": step, **figures, "zero_shot.chest_xray_view": 0.6})
    return entries


def _figure(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "chance": 0.5, "num_images": 40, "num_patients": 30}


def _card(figures: dict[str, Any]) -> Card:
    held = SplitFigures(
        split="test",
        shards="ab",
        num_images=40,
        num_patients=30,
        num_in_training=2,
        problems={"corrupt": 1},
        figures=figures,
        notes=("A note on the test.",),
    )
    sources = (Source(name=f"site {HOSTILE}", licence="CC0", num_images=2000, num_patients=900),)
    return Card(name="tiny", data=sources, held_out=held, created_from={"seed": 3})


GOOD = {"chest_xray_findings": {"macro_auroc": _figure(0.81, 0.7, 0.9)}}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe({"name": "tiny", "data": {"shards": str(tmp_path / "secret" / "s")}, "train": {"lr": 2e-3}})


def _page(
    folder: Path,
    recipe: Recipe,
    log: list[dict[str, Any]],
    card: Card | None,
    filled: tuple[Reconstruction, ...] = (),
) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    pack = folder / "pack" if card is not None else None
    result = PretrainResult(folder, 20, 20 if pack else 40, pack, reconstructions=filled)
    return write_pretrain_report(recipe, result, card).read_text(encoding="utf-8")


def test_the_page_loads_nothing_runs_nothing_and_names_no_folder(tmp_path: Path, recipe: Recipe) -> None:
    page = _page(tmp_path / "run", recipe, _log(), _card(GOOD))
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "secret" not in page
    assert str(tmp_path) not in page
    assert not run_together(page)
    assert page == _page(tmp_path / "run", recipe, _log(), _card(GOOD))


def test_a_run_without_a_fault_says_so_and_has_every_section(tmp_path: Path, recipe: Recipe) -> None:
    lines = lines_of(_page(tmp_path / "run", recipe, _log(), _card(GOOD)))
    text = " ".join(lines)
    assert "✓ No step was left out, no sample was unreadable, and the loss went down." in text
    assert "Chest X-ray findings Mean AUROC 0.810 0.700 to 0.900 0.500 40 30" in text
    assert "40 images of 30 patients in the split test; 2 images of training left out; not read: corrupt 1" in text
    assert "Chest X-ray view: balanced accuracy in words 0.600 0.600 at step 10 0.333" in text
    assert "Images that find their text first (R@1) 0.300 0.300 at step 10 0.100" in text
    assert "weight decay: not of the embeddings of tokens and positions; open_clip: of all matrices" in text
    assert "train.decay_embeddings" in text
    assert "A note on the test." in lines
    assert "It was not stopped in between." in lines
    assert "2,000" in lines
    assert text.index("train.lr") < text.index("0.002")


def test_the_page_says_whose_weights_were_measured_and_what_chance_gives(tmp_path: Path) -> None:
    objective = {"contrastive": 0, "supervised": {"task": "chest_xray_view", "classes": ["pa", "ap", "lateral"]}}
    tuned = {"name": "t", "data": {"shards": "s"}, "objective": objective, "train": {"export": "best"}}
    areas = [
        {"kind": "val", "step": step, "val_loss": loss, "auroc": area, "balanced_accuracy": 0.4}
        for step, loss, area in ((5, 0.5, 0.6), (10, 0.4, 0.9), (20, 0.3, 0.8))
    ]
    log = [entry for entry in _log() if entry["kind"] != "val"] + areas
    text = " ".join(lines_of(_page(tmp_path / "run", load_recipe(tuned), log, _card(GOOD))))
    assert "weights in the pack: those of step 10, with the highest mean AUROC in validation (0.900)." in text
    assert "0.900 at step 10 0.500" in text
    assert "0.400 at step 5 0.333" in text
    last = load_recipe({**tuned, "train": {"export": "last"}})
    assert "weights in the pack." in " ".join(lines_of(_page(tmp_path / "last", last, log, _card(GOOD))))


def test_figures_within_sources_are_named_so_and_choose_the_step(tmp_path: Path) -> None:
    train = {"export": "best", "best_by": "within_sources", "zero_shot": ["chest_xray_view", "fundus_cataract"]}
    recipe = load_recipe({"name": "t", "data": {"shards": "s"}, "train": train})
    within = [
        {
            "kind": "val",
            "step": step,
            "val_loss": 1 / step,
            "within_sources": mean,
            "zero_shot.chest_xray_view.within_sources": mean,
            "zero_shot.fundus_cataract.within_sources": mean,
        }
        for step, mean in ((5, 0.6), (10, 0.9), (20, 0.8))
    ]
    log = [entry for entry in _log() if entry["kind"] != "val"] + within
    text = " ".join(lines_of(_page(tmp_path / "run", recipe, log, _card(GOOD))))
    assert "those of step 10, with the highest mean over tasks within single sources (0.900)" in text
    assert "Chest X-ray view: balanced accuracy in words within single sources 0.800 0.900 at step 10" in text
    assert "mean AUROC in words within single sources 0.800 0.900 at step 10 0.500" in text


def test_what_is_worst_stands_first(recipe: Recipe) -> None:
    log = _log(data_wait=0.4, scale=100.0)
    log += [{"kind": "skip", "step": 7, "loss": "nan", "grad_norm": "nan"}, {"kind": "bad", "step": 20, "truncated": 3}]
    log += [{"kind": "val", "step": 21, "val_loss": 0.9}]
    held = _card({"chest_xray_findings": {"macro_auroc": _figure(0.45, 0.3, 0.6)}}).held_out
    assert held is not None
    every = findings(recipe, History(log), held.rows(), finished=True)
    assert [one.severity for one in every] == ["bad"] * 3 + ["wait"] * 3
    texts = [one.text for one in every]
    assert "1 step was left out since its loss or gradient was not finite: 7." in texts
    assert "3 samples could not be read (truncated 3) and took no part." in texts
    assert any(
        "no better than chance: Chest X-ray findings: Mean AUROC 0.450 (0.300 to 0.600" in text for text in texts
    )
    assert any("lowest at step 20 (0.150) and rose to 0.900" in text and "last step" in text for text in texts)
    assert any("40 % of the time was spent waiting for data" in text for text in texts)
    assert any("limit of 100" in text for text in texts)


def test_a_recall_below_chance_is_a_finding_though_the_first_answers_are_right(recipe: Recipe) -> None:
    recalls = {"image_to_text_r1": _figure(0.79, 0.7, 0.9), "text_to_image_r10": _figure(0.48, 0.4, 0.55)}
    held = _card({"retrieval": recalls}).held_out
    assert held is not None
    (found,) = findings(recipe, History(_log()), held.rows(), finished=True)
    assert found.severity == "wait"
    assert "no better than chance: Texts that find their image among ten (R@10) 0.480 (0.400 to" in found.text
    assert "R@1) 0.79" not in found.text


def test_an_idle_device_is_a_finding_where_data_was_there(recipe: Recipe) -> None:
    every = [findings(recipe, History(_log(device_idle=0.3, data_wait=wait)), [], finished=True) for wait in (0.0, 0.3)]
    texts = [" ".join(one.text for one in some) for some in every]
    assert "idle 30 % of the time though data was there" in texts[0]
    assert "idle" not in texts[1]
    assert "30 % of the time was spent waiting for data" in texts[1]


def test_a_loss_that_does_not_fall_is_a_finding(recipe: Recipe) -> None:
    log = [{"kind": "step", "step": step, "loss": 2.0 + step, "images_s": 1.0} for step in range(1, 4)]
    every = findings(recipe, History(log), [], finished=True)
    assert every[0].text == "The training loss did not go down: 3.000 in the first logged step, 5.000 in the last."
    assert "There was no validation" in every[1].text


def test_a_stopped_run_has_a_page_too(tmp_path: Path, recipe: Recipe) -> None:
    log = [*_log(), {"kind": "resume", "step": 10}]
    text = " ".join(lines_of(_page(tmp_path / "run", recipe, log, None)))
    assert "The run was stopped before its end: there is no pack yet." in text
    assert "went on from its checkpoint at step 10." in text
    empty = " ".join(lines_of(_page(tmp_path / "run", recipe, [], None)))
    assert "Loss and learning rate" not in empty


def test_curves_have_the_colours_of_the_page_in_dark_mode_and_on_paper(tmp_path: Path, recipe: Recipe) -> None:
    page = _page(tmp_path / "run", recipe, _log(), _card(GOOD))
    images = re.findall(r'class="curves" src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(images) == 2
    assert "4.000 at step 1, 0.200 at step 20" in images[0][1]
    for data, _ in images:
        svg = base64.b64decode(data).decode()
        assert "prefers-color-scheme: dark" in svg
        drawn = svg[svg.index("</style>") :]
        assert not re.search(r"#(?!000000|ffffff)[0-9a-f]{6}\b", drawn)  # every colour has a name
        assert "var(--first)" in drawn


def test_a_long_run_is_drawn_with_few_points() -> None:
    noise = np.random.default_rng(0).random(20_000).tolist()
    entries = [{"kind": "step", "step": s, "loss": loss, "lr": 1e-3} for s, loss in enumerate(noise, 1)]
    assert len(learning(History(entries))) < 150_000


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("auroc mass zero_shot", "AUROC, mass"),
        ("image_to_text_r1 start", "Images that find their text first (R@1)"),
        ("val_loss", "Loss"),
    ],
)
def test_metrics_have_names_that_people_read(name: str, title: str) -> None:
    assert metric_title(name) == title


def _masked_log(num_steps: int = 20) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        entries.append({"kind": "step", "step": step, "loss": 4 / step, "lr": 1e-3, "images_s": 90.0})
        if step % 10 == 0:
            entries.append({"kind": "val", "step": step, "val_loss": 3 / step})
    return entries


def _filled(error: float = 0.2, naive: float = 0.9, *, colour: bool = False) -> Reconstruction:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32, 1), dtype=np.uint8).repeat(3, 2)
    guess = grey.copy()
    guess[:16, :, 1] += 9  # a colour cast, as a model of three channels makes
    original = guess if colour else grey
    return Reconstruction(original, np.full_like(grey, 128), guess, "xray", 0.9, error, naive)


@pytest.fixture
def masked(tmp_path: Path) -> Recipe:
    return load_recipe({"name": "mae", "objective": "masked", "data": {"shards": str(tmp_path / "secret" / "s")}})


def test_the_page_of_a_masked_run_shows_what_was_filled_in_and_speaks_of_no_words(
    tmp_path: Path, masked: Recipe
) -> None:
    page = _page(tmp_path / "run", masked, _masked_log(), Card(name="mae"), (_filled(), _filled()))
    text = " ".join(lines_of(page))
    assert "X-ray: original, what was seen, filled in. 90 % hidden. Error 0.200; without a model 0.900." in text
    assert "These are images of patients." in text
    assert "but it shows images of some" in text
    assert "has no words, so there is no task to ask of it" in text
    assert "Loss 0.150 0.150 at step 20" in text
    assert page.count("data:image/png") == 6
    for word in ("R@1", "open_clip", "retrieval", "caption", "text tower", "No test split was measured"):
        assert word not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert not run_together(page)
    assert "Where it differs from the training of medical_mae" in text
    assert "mirroring: never where the record names a side; medical_mae: of every image" in text


def test_the_curves_are_of_the_loss_and_of_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    draw_line = page._line
    monkeypatch.setattr(page, "_line", lambda axes, points, *a: drawn.append(points) or draw_line(axes, points, *a))
    history = History(_masked_log())
    page.learning(history)
    assert drawn == [history.column("loss"), history.column("lr")]
    assert drawn[0] != drawn[1]


def test_a_grey_image_is_filled_in_with_grey_and_a_coloured_one_with_colour(tmp_path: Path, masked: Recipe) -> None:
    def modes(filled: Reconstruction) -> list[str]:
        page = _page(tmp_path / "run", masked, _masked_log(), Card(name="mae"), (filled,))
        found = re.findall(r"data:image/png;base64,([^\"]+)", page)
        return [Image.open(io.BytesIO(base64.b64decode(data))).mode for data in found]

    assert modes(_filled()) == ["L", "L", "L"]
    assert modes(_filled(colour=True)) == ["RGB", "RGB", "RGB"]


def test_a_page_without_reconstructions_has_no_such_section_and_normalised_targets_are_said(
    tmp_path: Path, masked: Recipe
) -> None:
    measured = _card({"hidden_pixels": {"masked_error": _figure(0.2, 0.1, 0.3)}})
    text = " ".join(lines_of(_page(tmp_path / "run", masked, _masked_log(), measured, (_filled(),))))
    assert "guessing gives: for hidden pixels, the error of a guess without a model." in text
    assert "retrieval" not in text
    assert "What it fills in" not in _page(tmp_path / "run", masked, _masked_log(), Card(name="mae"))
    page = _page(tmp_path / "run", masked, _masked_log(), Card(name="mae"), (_filled(),))
    assert "they look better than what it could draw alone" not in page
    natural = masked.model_copy(deep=True)
    object.__setattr__(natural.objective.masked, "normalise", True)
    page = _page(tmp_path / "run", natural, _masked_log(), Card(name="mae"), (_filled(),))
    assert "they look better than what it could draw alone" in page


def test_a_model_that_fills_in_no_better_than_the_mean_is_a_finding(masked: Recipe) -> None:
    def texts(*filled: Reconstruction) -> list[str]:
        every = findings(masked, History(_masked_log()), [], finished=True, filled=filled)
        return [one.text for one in every if "hardly better" in one.text]

    assert texts(_filled(0.2, 0.9), _filled(0.95, 0.9)) == []
    (text,) = texts(_filled(0.88, 0.9), _filled(0.95, 0.9))
    assert "On 2 held-out images" in text
    assert "(the error is no smaller)" in text
    (text,) = texts(_filled(0.85, 0.9))
    assert "(the error is 6 % smaller)" in text


def test_where_a_test_split_was_measured_it_says_what_was_learned_and_not_the_few_images_that_are_shown(
    masked: Recipe,
) -> None:
    def texts(value: float) -> list[str]:
        row = {
            "task": "hidden_pixels",
            "metric": "masked_error",
            "value": value,
            "chance": 1.0,
            "low": 0.1,
            "high": 2.0,
        }
        every = findings(masked, History(_masked_log()), [row], finished=True, filled=[_filled(0.2, 0.9)])
        return [one.text for one in every if one.severity != "good"]

    assert texts(0.5) == []
    (text,) = texts(0.86)
    assert text.startswith("On the test split hidden patches are guessed hardly better")
    assert "(the error is 14 % smaller)" in text
    (text,) = texts(1.1)
    assert "no better than a guess without a model" in text


def test_a_gain_over_no_model_that_may_be_none_is_doubted(masked: Recipe) -> None:
    def texts(low: float) -> list[str]:
        gain = {"task": "hidden_pixels", "metric": "masked_gain", "value": 0.3, "chance": 0.0, "low": low, "high": 0.6}
        return [one.text for one in findings(masked, History(_masked_log()), [gain], finished=True)]

    assert not any("taken away" in text for text in texts(0.1))
    assert any("intervals hold what chance gives" in text and "taken away 0.300" in text for text in texts(-0.1))
