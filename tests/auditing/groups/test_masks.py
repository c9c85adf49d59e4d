"""The audit of masks: what is compared with what, its intervals, its rivals, and files that cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import medclip
from medclip.errors import MedclipError, Reason
from medclip.reports.audit.report import render
from medclip.reports.audit.summary import summary
from medclip.statistics.metrics.masks import dice_and_iou, surface_distance
from tests.kits.scoring import write_dicom

QUICK: dict[str, Any] = {"num_resamples": 200, "num_permutations": 100, "label": "spot"}
SIDE = 48


def disc(y: float, x: float, radius: float, size: tuple[int, int] = (SIDE, SIDE + 12)) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def write_png(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def audit_set(
    folder: Path, truths: list[np.ndarray], marked: list[np.ndarray], *, per_patient: int = 1, **columns: Any
) -> tuple[Path, Path]:
    """Write true masks with a table, and marked ones as `medclip score` does; return folder of scores and table."""
    numbers, table, scores = range(len(truths)), folder / "table.csv", folder / "scores"
    for n, (truth, said) in enumerate(zip(truths, marked, strict=True)):
        write_png(folder / f"{n}-mask.png", truth)
        write_png(scores / f"maps/{n + 1:06}-spot.png", said)
    files = [f"{n}.png" for n in numbers]
    pd.DataFrame(
        {
            "file": files,
            "spot": [f"{n}-mask.png" for n in numbers],
            "patient": [f"P{n // per_patient}" for n in numbers],
        }
        | columns
    ).to_csv(table, index=False)
    rows = [n + 1 for n in numbers]
    of_files = {"row": rows, "path": files, "study": [f"s{n}" for n in numbers], "modality": "dermatology"}
    pd.DataFrame({**of_files, "status": "scored", "reason": None}).to_parquet(scores / "files.parquet")
    maps = {"task": "spot", "class": "spot", "map": [f"maps/{row:06}-spot.png" for row in rows], "model": "tiny"}
    shares = [float(said.mean()) for said in marked]
    pd.DataFrame({"row": rows, "study": of_files["study"], **maps, "share": shares}).to_parquet(scores / "maps.parquet")
    return scores, table


def discs(number: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Make true discs anywhere, and marked ones a little off."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(12, SIDE - 12, (number, 2))
    off = rng.normal(0, 2, (number, 2))
    return [disc(*place, 9) for place in places], [disc(*place, 9) for place in places + off]


def values(result: Any, group: str = "all", method: str = "model", reference: str | None = None) -> dict[str, dict]:
    rows = [r for r in result.masks if (r["group"], r["method"], r.get("reference")) == (group, method, reference)]
    return {row["metric"]: row for row in rows}


def test_figures_are_means_over_images_and_rivals_stand_beside_them(tmp_path: Path) -> None:
    truths, marked = discs(30)
    scores, table = audit_set(tmp_path, truths, marked, sex=["F", "M"] * 15)
    result = medclip.audit(scores, table, by=["sex"], **QUICK)
    everybody = values(result)
    pairs = list(zip(marked, truths, strict=True))
    assert everybody["dice"]["value"] == pytest.approx(np.mean([dice_and_iou(*pair)[0] for pair in pairs]))
    assert everybody["hd95_px"]["value"] == pytest.approx(np.mean([surface_distance(*pair) for pair in pairs]))
    assert everybody["hd95_px"]["low"] < everybody["hd95_px"]["value"] < everybody["hd95_px"]["high"]
    assert (everybody["dice"]["n"], everybody["dice"]["n_patients"]) == (30, 30)
    assert not {"hd95_mm", "empty_marked"} & set(everybody)
    position, apart = values(result, method="mean mask")["dice"], values(result, reference="mean mask")["dice"]
    assert apart["value"] == pytest.approx(everybody["dice"]["value"] - position["value"])
    assert apart["low"] > 0
    assert not values(result, method="otsu")  # there are no images
    women, against = values(result, "F")["dice"], values(result, "F", reference="rest")["dice"]
    assert against["value"] == pytest.approx(women["value"] - values(result, "M")["dice"]["value"])
    assert against["p_holm"] >= against["p"]
    assert "Dice" in " ".join(sentence for matter in summary(result) for sentence in matter.all)
    assert "the mean mask of other patients" in render(result)
    assert any(row["metric"] == "dice" for row in json.loads(result.to_json())["tables"]["masks"])
    assert "hd95_px" in set(result.to_pandas()["metric"])


def test_intervals_resample_patients_and_not_images(tmp_path: Path) -> None:
    truths, marked = discs(20)
    alone = medclip.audit(*audit_set(tmp_path / "alone", truths, marked), **QUICK)
    copies = audit_set(tmp_path / "copies", truths * 4, marked * 4, patient=[f"P{n}" for n in range(20)] * 4)
    four = medclip.audit(*copies, **QUICK)
    one, other = (values(result)["dice"] for result in (alone, four))
    assert other["n"] == 4 * one["n"]
    assert [other[end] for end in ("value", "low", "high")] == pytest.approx([one[e] for e in ("value", "low", "high")])
    dices = np.array([dice_and_iou(*pair)[0] for pair in zip(marked, truths, strict=True)])
    assert one["high"] - one["low"] == pytest.approx(2 * 2.09 * dices.std(ddof=1) / np.sqrt(20), rel=0.2)


def test_empty_masks_have_a_figure_of_their_own(tmp_path: Path) -> None:
    truths, marked = discs(24)
    nothing = np.zeros_like(truths[0])
    scores, table = audit_set(tmp_path, [*truths, *[nothing] * 12], [*marked, *marked[:3], *[nothing] * 9])
    everybody = values(medclip.audit(scores, table, **QUICK))
    assert everybody["dice"]["value"] == pytest.approx(
        np.mean([dice_and_iou(*pair)[0] for pair in zip(marked, truths, strict=True)])
    )
    assert (everybody["dice"]["n"], everybody["empty_marked"]["n"]) == (24, 12)
    assert everybody["empty_marked"]["value"] == 0.25
    assert 0 < everybody["empty_marked"]["low"] < 0.25 < everybody["empty_marked"]["high"] < 1


def test_a_structure_that_is_missed_has_no_distance_and_is_counted(tmp_path: Path) -> None:
    truths, marked = discs(24)
    scores, table = audit_set(tmp_path, truths, [np.zeros_like(truths[0])] * 6 + marked[6:])
    everybody = values(medclip.audit(scores, table, **QUICK))
    assert everybody["nothing_marked"]["value"] == 0.25
    assert (everybody["hd95_px"]["n"], everybody["lesion_sensitivity"]["n"]) == (18, 24)


def test_masks_that_follow_no_image_are_found_to_be_blind(tmp_path: Path) -> None:
    truths, _ = discs(30)
    scores, table = audit_set(tmp_path, truths, [disc(SIDE / 2, SIDE / 2, 9)] * 30)
    result = medclip.audit(scores, table, **QUICK)
    first = next(matter for matter in summary(result) if matter.head == "What was found")
    assert "is marked no better than by the mean mask of other patients" in first.all[0]


def test_a_group_that_is_marked_worse_is_found_and_stands_first(tmp_path: Path) -> None:
    truths, marked = discs(60)
    site = ["A", "B", "C"] * 20
    worse = [np.roll(said, 7, axis=1) if one == "C" else said for said, one in zip(marked, site, strict=True)]
    result = medclip.audit(*audit_set(tmp_path, truths, worse, site=site), by=["site"], **QUICK)
    page = render(result)
    assert "Spot is outlined with less overlap (Dice) in C (site)" in page
    table = page[page.index("Spot: by group") :]
    assert table.index(">C<") < min(table.index(">A<"), table.index(">B<"))


def test_small_groups_are_hidden_and_their_counts_cannot_be_worked_out(tmp_path: Path) -> None:
    truths, marked = discs(40)
    site = ["A"] * 33 + ["B"] * 7
    result = medclip.audit(*audit_set(tmp_path, truths, marked, site=site), by=["site"], **QUICK)
    small = [row for row in result.masks if row["group"] == "B"]
    assert {row["flag"] for row in small} == {"suppressed"}
    assert all(row.get("value") is None and row.get("n") is None for row in small)
    assert values(result, "A")["dice"]["n"] == 35  # rounded: 33 would give the others away
    assert [(row["attribute"], row["group"]) for row in result.suppressed] == [("site", "B")]
    assert "not shown" in render(result)


def test_a_spacing_gives_millimetres_and_an_image_gives_otsu(tmp_path: Path) -> None:
    truths, marked = discs(12)
    truths, marked = ([np.pad(mask, ((0, 42), (0, 10))) for mask in masks] for masks in (truths, marked))
    files = [f"{n}.dcm" for n in range(12)]
    scores, table = audit_set(tmp_path, truths, marked)
    for n, file in enumerate(files):
        write_dicom(tmp_path / file, n, modality="XC", PixelSpacing=[0.5, 0.25])
    for path in (table, scores / "files.parquet"):
        frame = pd.read_csv(path) if path == table else pd.read_parquet(path)
        frame = frame.assign(**{"file" if path == table else "path": files})
        frame.to_csv(path, index=False) if path == table else frame.to_parquet(path)
    result = medclip.audit(scores, table, **QUICK)
    expected = [surface_distance(*pair, (0.5, 0.25)) for pair in zip(marked, truths, strict=True)]
    assert values(result)["hd95_mm"]["value"] == pytest.approx(np.mean(expected))
    assert "hd95_px" not in values(result)
    assert 0 < values(result, method="otsu")["dice"]["value"] < 1
    assert values(result, reference="otsu")["dice"]["low"] > 0


def test_one_bad_file_is_a_note_with_its_row_and_reason(tmp_path: Path) -> None:
    truths, marked = discs(16)
    scores, table = audit_set(tmp_path, truths, marked)
    write_png(tmp_path / "1-mask.png", np.ones((5, 5), np.bool_))
    (tmp_path / "2-mask.png").unlink()
    (tmp_path / "3-mask.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (scores / "maps/000005-spot.png").unlink()
    result = medclip.audit(scores, table, **QUICK)
    assert values(result)["dice"]["n"] == 12
    (note,) = [note for note in result.notes if "cannot be compared" in note]
    for part in ("4 images", "row 2", "5 x 5", "store masks with the image's own pixels", "row 3", "row 4", "row 5"):
        assert part in note
    assert str(tmp_path) not in note


def test_rows_without_a_mask_do_not_count_and_are_said_to_be_unlabelled(tmp_path: Path) -> None:
    scores, table = audit_set(tmp_path, *discs(16))
    frame = pd.read_csv(table)
    frame.loc[:2, "spot"] = None
    frame.to_csv(table, index=False)
    result = medclip.audit(scores, table, **QUICK)
    assert values(result)["dice"]["n"] == 13
    assert {row["label"] for row in result.unlabelled} == {"spot"}


def refusal(*arguments: Any, **more: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        medclip.audit(*arguments, **(QUICK | more))
    return caught.value


def test_what_cannot_be_audited_is_refused_by_name(tmp_path: Path) -> None:
    scores, table = audit_set(tmp_path, *discs(12), finding=["benign", "malignant"] * 6)
    no_mask = refusal(scores, table, label="spot=finding")
    assert (no_mask.reason, Path(str(no_mask.where)).name) == (Reason.MISSING_FILE, "benign")
    other = refusal(scores, table, label="polyp")
    assert "Structures: spot" in other.message
    assert "mask files" in refusal(scores, table, label="spot=nothing").message
    assert (
        "in which folder"
        in refusal(pd.read_parquet(scores / "maps.parquet"), table, files=scores / "files.parquet").message
    )
    (scores / "maps.parquet").unlink()
    assert refusal(scores, table).reason is Reason.MISSING_FILE


def test_images_in_the_place_of_masks_are_cautioned_against(tmp_path: Path) -> None:
    truths, marked = discs(12)
    result = medclip.audit(*audit_set(tmp_path, [np.ones_like(truth) for truth in truths], marked), **QUICK)
    assert any("are these files of masks" in note for note in result.notes)
