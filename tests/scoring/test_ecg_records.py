"""ECG records of every kind behind the verbs: what is wrong with one stands in its rows, or is its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medclip.adapters.registry import preprocessing_of
from medclip.api.embed import embed
from medclip.api.score import score
from medclip.api.search import search
from medclip.api.view import view
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.draw_sheet import SheetOptions, render
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.models.inputs.signal_input import SignalInput
from medclip.runs.outputs.score_run import not_learned
from medclip.settings import ReadPolicy
from tests.kits.ecg import beats, muse, recording, sierra, write_wfdb
from tests.kits.scoring import every_way, make_pack, rows


def _write(folder: Path, name: str, leads: dict[str, NDArray[np.float64]], hz: float = 500.0, **options: Any) -> Path:
    (folder / name).mkdir(parents=True)
    return write_wfdb(folder / name, leads, hz, name=name, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with one fault each."""
    root, good = tmp_path_factory.mktemp("records"), beats()
    _write(root, "good", good)
    _write(root, "fast_rate", beats(10_000, 1000.0), 1000.0)
    _write(root, "eight", {lead: line for lead, line in good.items() if lead in ("I", "II") or lead[0] == "V"})
    _write(root, "limb", {lead: line for lead, line in good.items() if lead[0] != "V"})
    _write(root, "strip", beats(1250))
    _write(root, "gaps", {**good, "V2": np.where(np.arange(5000) < 900, np.nan, good["V2"])})
    _write(root, "constant", {**good, "V3": np.full(5000, 0.1)})
    swapped = {"I": -good["I"], "II": good["III"], "III": good["II"], "aVR": good["aVL"], "aVL": good["aVR"]}
    _write(root, "arms", {**good, **swapped})
    _write(root, "counts", {lead: line * 20 for lead, line in good.items()})
    _write(root, "names", {f"channel {n}": good[lead] for n, lead in enumerate(TWELVE)})
    _write(root, "unit", good, units=["bananas"] * 12)
    header = _write(root, "gain", good)
    first, *lines = header.read_text().splitlines()
    without = [f"{line.split()[0]} 16 0 16 0 0 0 0 {lead}" for line, lead in zip(lines, TWELVE, strict=False)]
    header.write_text("\n".join([first, *without]) + "\n")
    counts = {lead: np.round(line * 200).astype(np.int16) for lead, line in good.items()}
    (root / "philips.xml").write_text(sierra(counts, kind="PhilipsECG"))
    (root / "muse.xml").write_text(muse(counts))
    return root


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ways = {way: known for way, known in every_way().items() if way in ("generic", "ecg:signal")}
    return make_pack(tmp_path_factory.mktemp("packs") / "ecg", adapters=ways, modalities=["ecg"])


NOTES = {
    "good": None,
    "fast_rate": None,
    "eight": None,
    "philips": None,
    "muse": None,
    "limb": "lead_missing:V1,V2,V3,V4,V5,V6",
    "strip": "short_record",
    "gaps": "lead_gaps:V2",
    "constant": "lead_flat:V3",
    "arms": "arms_swapped",
    "counts": "other_scale",
}
REASONS = {"names": "not_an_image", "unit": "no_scale", "gain": "no_scale"}


def test_a_fault_stands_in_the_row_or_is_the_reason_and_stored_vectors_say_the_same(
    folder: Path, pack: Path, tmp_path: Path
) -> None:
    run = score(folder, tmp_path / "files", model=pack, workers=1, prompt="a bright bone")
    notes = {Path(json.loads(row["files"])[0]).stem: row["note"] for row in run.scores.to_pylist()}
    assert notes == NOTES
    cautions = {Path(json.loads(row["files"])[0]).stem: row["caution"] or "" for row in run.scores.to_pylist()}
    assert [name for name, text in cautions.items() if "not those of an ECG in mV" in text] == ["counts"]
    assert not_learned(cautions["counts"])
    files = rows(run)
    reasons = {name: row["reason"] for path, row in files.items() if (name := Path(path).stem) in REASONS}
    assert reasons == REASONS
    headers = json.loads(files["arms/arms.hea"]["headers"])
    assert (headers["ecg_flags"], headers["heart_rate_bpm"], headers["missing_leads"]) == (["arms_swapped"], 60, [])
    stored = embed(folder, tmp_path / "stored", model=pack, workers=1)
    assert score(stored.folder, model=pack, prompt="a bright bone").scores.equals(run.scores)
    again = score(stored.folder, tmp_path / "vectors", model=pack, prompt="a bright bone")
    assert again.scores.equals(run.scores)


SIGNAL = SignalInput(sampling_hz=100, seconds=5)


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that takes ECGs as signals."""
    ways = {"ecg:signal": preprocessing_of("ecg:signal", ReadPolicy(ecg=SIGNAL.options))}
    return make_pack(tmp_path_factory.mktemp("packs") / "signals", ways, signal=SIGNAL, modalities=["ecg"], tasks={})


def test_a_model_of_signals_scores_embeds_and_finds_the_same_records(
    folder: Path, signals: Path, tmp_path: Path
) -> None:
    run = score(folder, tmp_path / "files", model=signals, workers=1, prompt="a bright bone")
    notes = {Path(json.loads(row["files"])[0]).stem: row["note"] for row in run.scores.to_pylist()}
    assert notes == {**NOTES, "gaps": None}  # the gap lies outside of the five seconds that this model takes
    assert {row["num_images"] for row in run.scores.to_pylist()} == {1}
    page = (tmp_path / "files" / "report.html").read_text()
    assert page.count("data:image/png;base64,iVBOR") == len(NOTES)
    assert "Lead flat: V3." in page
    stored = embed(folder, tmp_path / "stored", model=signals, workers=1)
    assert score(stored.folder, model=signals, prompt="a bright bone").scores.equals(run.scores)
    example = folder / "good" / "good.hea"
    result = search(stored.folder, like=example, where="ecg_flags=arms_swapped", model=signals, report_paths=True)
    assert [hit.file.split(".")[0] for hit in result.hits] == ["arms/arms"]
    others = search(stored.folder, like=example, where="ecg_flags!=arms_swapped", model=signals, report_paths=True)
    assert {Path(hit.file.split()[0]).stem for hit in others.hits} == set(NOTES) - {"arms"}
    with pytest.raises(MedclipError, match="ecg_flags=irregular") as refused:
        search(stored.folder, like=example, where="ecg_flags=irregular", model=signals)
    assert "[" not in refused.value.hint
    assert "arms_swapped, lead_flat:V3" in refused.value.hint


def test_images_of_sheets_are_scored_by_a_model_of_images_and_by_none_of_signals(
    pack: Path, signals: Path, tmp_path: Path
) -> None:
    Image.fromarray(render(canonical(recording(beats())), SheetOptions(dpi=60))[0]).save(tmp_path / "sheet.jpg")
    run = score(tmp_path, model=pack, workers=1, prompt="a bright bone", modality="ecg")
    assert [(row["modality"], row["num_images"], row["note"]) for row in run.scores.to_pylist()] == [("ecg", 1, None)]
    refused = rows(score(tmp_path, model=signals, workers=1, prompt="a bright bone"))["sheet.jpg"]
    assert (refused["status"], refused["reason"]) == ("skipped", "other_input")
    assert "medclip ecg digitise makes a record of a printed sheet" in refused["message"]
    with pytest.raises(MedclipError, match="it is no ECG record") as caught:
        view(tmp_path / "sheet.jpg", tmp_path / "seen.png", model=signals)
    assert caught.value.reason is Reason.OTHER_INPUT
