"""A task whose figures are of ECG records is not asked of printed sheets, and the other way round."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.models.packs.pack import find_pack, pack_card, update_pack
from medclip.sample import Kind
from medclip.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples" / "studies" / "ecg"
OF_KIND = {
    kind: {name for name, entry in pack_card("medclip-mini").tasks.items() if entry.kinds == (kind,)}
    for kind in (Kind.IMAGE, Kind.SIGNAL)
}


@pytest.fixture
def ecgs(tmp_path: Path) -> Path:
    """A record, and what is taken for a printed sheet."""
    folder = tmp_path / "in"
    folder.mkdir()
    for file in EXAMPLES.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    pixels = np.full((400, 600, 3), 240, np.uint8)
    pixels[200 + (60 * np.sin(np.arange(600) / 9)).astype(int), np.arange(600)] = 20
    Image.fromarray(pixels).save(folder / "sheet.png")
    return folder


def asked(result: Any) -> dict[str, set[str]]:
    """Tasks by whether the study is the sheet or the record."""
    tasks: dict[str, set[str]] = {}
    for row in result.scores.to_pylist():
        tasks.setdefault("sheet" if "sheet.png" in row["files"] else "record", set()).add(row["task"])
    return tasks


def test_a_record_and_a_sheet_are_asked_what_was_measured_on_their_kind(ecgs: Path, tmp_path: Path) -> None:
    assert all(OF_KIND.values())
    run: dict[str, Any] = {"modality": "ecg", "settings": Settings(workers=1)}
    expected = {"sheet": OF_KIND[Kind.IMAGE], "record": OF_KIND[Kind.SIGNAL]}
    result = medclip.score(ecgs, out=tmp_path / "out", **run)
    assert asked(result) == expected
    assert result.unlearned == medclip.score(ecgs / "sheet.png", **run).unlearned == ()
    medclip.embed(ecgs, out=tmp_path / "vectors", **run)
    assert asked(medclip.score(tmp_path / "vectors", out=tmp_path / "asked")) == expected
    explained = medclip.explain(ecgs, out=tmp_path / "maps", **run)
    tasks = {("sheet" if "sheet" in one.file else "record"): {m.task for m in one.maps} for one in explained.units}
    assert {name: of <= expected[name] and bool(of) for name, of in tasks.items()} == {"sheet": True, "record": True}
    named = sorted(OF_KIND[Kind.IMAGE])
    result = medclip.score(ecgs, out=tmp_path / "named", task=named, **run)
    assert asked(result) == {"sheet": set(named), "record": set(named)}  # who names a task has it asked


@pytest.mark.slow
def test_words_for_what_was_measured_on_sheets_are_grey_beside_a_record(ecgs: Path, tmp_path: Path) -> None:
    run: dict[str, Any] = {"modality": "ecg", "prompt": "myocardial infarction", "settings": Settings(workers=1)}
    reason = "the model’s card has figures of this for ECG images, not for signals"
    both = medclip.score(ecgs, **run)
    assert both.unlearned == ()
    assert [note for note in both.notes if "ECG" in note] == [f"“myocardial infarction”: {reason}."]
    assert medclip.score(ecgs / "sheet.png", **run).unlearned == ()
    (ecgs / "sheet.png").unlink()
    record = medclip.score(ecgs, **run)
    tried = "Myocardial infarction (Diagnostic superclass) was tried, with " + (
        pack_card().not_claimed["ecg_superclass"]["mi"].in_words
    )
    assert [(one.modality, one.class_, one.reason) for one in record.unlearned] == [
        ("ecg", "myocardial infarction", f"{reason}; {tried}")
    ]
    medclip.embed(ecgs, out=tmp_path / "vectors", modality="ecg", settings=Settings(workers=1))
    assert medclip.score(tmp_path / "vectors", prompt="myocardial infarction").unlearned == record.unlearned
    named = medclip.score(ecgs, task=sorted(OF_KIND[Kind.IMAGE]), modality="ecg", settings=Settings(workers=1))
    assert {one.reason for one in named.unlearned} == {reason}


def test_a_record_is_skipped_with_the_reason_where_nothing_was_measured_on_records(ecgs: Path, tmp_path: Path) -> None:
    pack = shutil.copytree(find_pack("medclip-mini"), tmp_path / "sheets")
    card = pack_card(pack)
    tasks = {name: entry for name, entry in card.tasks.items() if name not in OF_KIND[Kind.SIGNAL]}
    update_pack(pack, card=card.model_copy(update={"tasks": tasks}))
    result = medclip.score(ecgs, model=pack, modality="ecg", settings=Settings(workers=1))
    rows = {row["path"]: row for row in result.files.to_pylist()}
    assert rows["sheet.png"]["status"] == "scored"
    record = rows["00223_lr.hea"]
    assert (record["status"], record["reason"]) == ("skipped", "no_task")
    assert "No task of the model's card was measured on ECG signals" in record["message"]
    assert "ecg_sheet" in record["message"]
