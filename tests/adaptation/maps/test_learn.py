"""A pack is adapted to planted squares from a few masks: what is learned, measured, written, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.adaptation.maps import learn
from medclip.adaptation.maps.learn import MapRun
from medclip.errors import MedclipError, Reason
from tests.kits.masks import write_rows, write_squares
from tests.kits.scoring import every_way, make_pack

QUICK: dict[str, Any] = {"map": "mask", "label": "square", "workers": 1, "overrides": ["steps=60"]}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    rows = write_squares(folder, 24, per_patient=2)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    write_rows(folder / "table.csv", [*rows, "broken.png,0-mask.png,MRN-0,dermatology", "none.png,,MRN-1,dermatology"])
    return folder


@pytest.fixture(scope="module")
def run(pack: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MapRun:
    out = tmp_path_factory.mktemp("out") / "squares"
    run = medclip.adapt(folder / "table.csv", model=pack, out=out, shots=6, test_share=0.5, **QUICK)
    assert isinstance(run, MapRun)
    return run


def test_squares_are_told_better_than_by_their_mean_place(run: MapRun) -> None:
    figures = run.measured
    assert figures.figures["dice"].value > figures.position.value + 0.05
    assert figures.above_position.low > 0
    assert (figures.num_patients, figures.num_empty, run.num_images) == (6, 0, 25)
    assert figures.figures["lesion_sensitivity"].value == 1
    assert any("Rows without a mask" in note for note in run.notes)


def test_shots_are_of_one_image_a_patient_and_none_of_them_is_tested(run: MapRun) -> None:
    shots, tested = {s.patient for s in run.adapted.shots}, {one.patient for one in run.tested}
    assert len(run.adapted.shots) == len(shots) == 6
    assert not shots & tested


def test_the_pack_says_what_it_marks_and_how_well(run: MapRun) -> None:
    assert run.folder is not None
    card = json.loads((run.folder / "card.json").read_text())
    assert card["adapted"]["method"] == "map-probe"
    assert set(card["tasks"]["square"]["metrics"]) == {
        *("dice", "iou", "lesion_sensitivity", "nothing_marked", "false_alarms")
    }
    assert "kind: map" in (run.folder / "task.yaml").read_text()
    assert "MRN" not in (run.folder / "shots.csv").read_text()
    assert "Dice" in repr(run)
    assert run.to_pandas()["metric"].tolist()[0] == "dice"


def test_an_equal_call_gives_equal_bytes(pack: Path, folder: Path, run: MapRun, tmp_path: Path) -> None:
    again = medclip.adapt(folder / "table.csv", model=pack, out=tmp_path / "again", shots=6, test_share=0.5, **QUICK)
    assert again.folder is not None
    assert run.folder is not None
    names = sorted(path.name for path in run.folder.iterdir())
    assert names == sorted(path.name for path in again.folder.iterdir())
    for name in names:
        assert (run.folder / name).read_bytes() == (again.folder / name).read_bytes(), name


def test_the_last_map_alone_is_a_coarser_grid(pack: Path, folder: Path, run: MapRun) -> None:
    last = medclip.adapt(
        folder / "table.csv", model=pack, shots=6, test_share=0.5, **(QUICK | {"overrides": ["levels=false"]})
    )
    assert last.adapted.fitted.head.rows < run.adapted.fitted.head.rows
    assert last.adapted.fitted.settings["levels"] is False


def test_a_shot_that_cannot_be_read_is_replaced_by_the_next_patient(pack: Path, folder: Path) -> None:
    lines = (folder / "table.csv").read_text().splitlines()[1:25:2]
    broken = write_rows(folder / "broken.csv", [*lines, "broken.png,0-mask.png,MRN-50,dermatology"])
    run = medclip.adapt(broken, model=pack, shots=13, test_share=0, **QUICK)
    assert len(run.adapted.shots) == 12
    assert sum(run.problems.values()) == 1
    assert any("the next patient" in note for note in run.notes)
    assert any("12 patients to learn from, fewer than the 13 asked for" in note for note in run.notes)
    assert not any("choose settings" in note for note in run.notes)
    assert any("Nobody is tested on" in note for note in run.notes)


def test_test_images_are_answered_some_at_a_time_with_the_same_figures(
    pack: Path, folder: Path, run: MapRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "_AT_ONCE", 5)
    again = medclip.adapt(folder / "table.csv", model=pack, shots=6, test_share=0.5, **QUICK)
    assert len(again.tested) > 5
    assert again.measured == run.measured


def test_where_no_shot_can_be_read_the_reason_is_said(pack: Path, folder: Path) -> None:
    rows = [f"broken.png,{n}-mask.png,MRN-{n},dermatology" for n in range(1)]
    with pytest.raises(MedclipError, match="not one of the first 1 shots could be read"):
        medclip.adapt(write_rows(folder / "unread.csv", rows), model=pack, shots=1, test_share=0, **QUICK)


def test_a_mask_of_another_size_is_a_file_that_could_not_be_read(pack: Path, folder: Path) -> None:
    rows = (folder / "table.csv").read_text().splitlines()[1:9:2]
    write_squares(folder / "small", 1, side=32)
    table = write_rows(folder / "sizes.csv", [*rows, "10.png,small/0-mask.png,MRN-70,dermatology"])
    run = medclip.adapt(table, model=pack, shots=9, test_share=0, **QUICK)
    assert dict(run.problems) == {"table_invalid": 1}


def refusal(pack: Path, table: Path, **changes: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        medclip.adapt(table, model=pack, **(QUICK | changes))
    return caught.value


def test_what_cannot_be_learned_is_refused_in_a_sentence(pack: Path, folder: Path, tmp_path: Path) -> None:
    table = folder / "table.csv"
    assert "learns from labels of images" in refusal(pack, table, method="linear-probe").message
    assert "which --map asks for" in refusal(pack, table, method="map-probe", map=None).message
    assert "one column of masks, not of 2" in refusal(pack, table, label=["square", "patient"]).message
    assert "is not of the kind map" in refusal(pack, table, task="skin_lesion").message
    rows = table.read_text().splitlines()[1:7]
    mixed = write_rows(folder / "mixed.csv", [*rows, "20.png,20-mask.png,MRN-80,endoscopy"])
    assert "2 modalities" in refusal(pack, mixed).message
    nobody = write_rows(folder / "nobody.csv", ["0.png,,MRN-1,dermatology"])
    assert refusal(pack, nobody).reason is Reason.NOTHING_TO_DO
    assert "at least one step" in refusal(pack, table, overrides=["steps=0"]).message


def test_masks_in_which_nothing_is_marked_teach_nothing(pack: Path, folder: Path) -> None:
    from PIL import Image

    Image.new("1", (64, 64)).save(folder / "empty-mask.png")
    rows = [f"{n}.png,empty-mask.png,MRN-{n},dermatology" for n in range(6)]
    assert "nothing is marked" in refusal(pack, write_rows(folder / "empty.csv", rows)).message


def test_test_images_in_which_nothing_is_true_have_a_figure_of_their_own(pack: Path, folder: Path) -> None:
    from PIL import Image

    Image.new("1", (64, 64)).save(folder / "none-mask.png")
    lines = (folder / "table.csv").read_text().splitlines()[:25]
    parts = ["split", *["train"] * 12, *["test"] * 12]
    lines = [f"{line},{part}" for line, part in zip(lines, parts, strict=True)]
    lines[13:16] = [line.replace(f",{n}-mask.png", ",none-mask.png") for n, line in enumerate(lines[13:16], 12)]
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    run = medclip.adapt(folder / "split.csv", model=pack, **QUICK)
    assert isinstance(run, MapRun)
    assert run.measured.num_empty == 3
    assert 0 <= run.measured.figures["empty_marked"].value <= 1
    assert run.measured.figures["dice"].value > 0.7
    assert any("3 images nothing is true" in line for line in run.measured.lines())


def test_a_test_image_that_is_a_copy_of_a_shot_is_refused(pack: Path, folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    lines = ["file,square,patient,modality,split", "0.png,0-mask.png,A,dermatology,train"]
    lines += ["copy.png,0-mask.png,B,dermatology,test", "2.png,2-mask.png,C,dermatology,test"]
    table = folder / "copies.csv"
    table.write_text("\n".join(lines) + "\n")
    assert refusal(pack, table).reason is Reason.PATIENT_OVERLAP
