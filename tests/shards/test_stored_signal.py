"""ECGs in shards: the record as its file has it, so that what a model is shown is made of it as of the file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import medclip
from medclip.adapters.base import source_of
from medclip.adapters.ecg import EcgAdapter, EcgOptions
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.filters import prepare
from medclip.imaging.ecg.recording import whole_microvolts
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.sample import Kind
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.stored_data import MAX_S, decode_signal, encode_array, encode_signal
from medclip.shards.writing.build import Form, build_shards
from tests.kits.ecg import heart, recording, write_edf, write_wfdb
from tests.kits.signal_shards import signal_shards
from tests.kits.training import make_shards

SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signal_shards(tmp_path_factory.mktemp("signals"), ("train",) * 4, missing=(2,))


@pytest.mark.parametrize(
    "options",
    [
        EcgOptions(sampling_hz=100, seconds=3, microvolts=True),
        EcgOptions(baseline="butterworth", notch_hz=50, sampling_hz=500, seconds=10, microvolts=True),
        EcgOptions(seconds=None, sampling_hz=None, normalisation="zscore_lead", microvolts=True),
    ],
)
def test_file_and_shard_give_equal_arrays_whatever_rate_length_and_filter(shards: Path, options: EcgOptions) -> None:
    adapter = EcgAdapter(options)
    with ShardReader(shards, "train") as reader:
        samples = [reader[i] for i in range(len(reader))]
    of_shards = [prepare(canonical(s.recording, seconds=options.seconds), options) for s in samples if s.recording]
    files = sorted((shards.parent / "files").glob("*.hea"))
    of_files = [adapter.read(source_of(path, SETTINGS), SETTINGS).signal for path in files]
    assert len(of_shards) == len(of_files) == 4
    keys = {signal.values_mv.tobytes() + signal.mask.tobytes() for signal in of_shards}
    assert keys == {signal.values_mv.tobytes() + signal.mask.tobytes() for signal in of_files if signal is not None}
    assert sorted(int(signal.mask.sum()) for signal in of_shards) == [9, 12, 12, 12]


def test_of_a_long_record_its_middle_is_stored_and_the_part_that_is_shown_is_the_same_to_the_bit() -> None:
    hz, options = 64.0, EcgOptions(sampling_hz=50, seconds=10, microvolts=True)
    for extra in (0, 1, 2, 3):
        record = recording(heart(round(hz * 400) + extra, hz), hz)
        data, facts = encode_signal(record)
        kept = decode_signal(data, facts)
        assert kept.values_mv.shape[1] / hz == pytest.approx(MAX_S, abs=2 / hz)
        first, second = (prepare(canonical(r, seconds=10), options) for r in (kept, whole_microvolts(record)))
        np.testing.assert_array_equal(first.values_mv, second.values_mv)


def test_a_shard_says_rate_leads_and_what_can_be_computed(shards: Path) -> None:
    with tarfile.open(next(shards.glob("train-*.tar"))) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    names = [name.partition(".")[2] for name in members][:3]
    assert names == ["npy", "json", "txt"]
    facts = [json.loads(data)["signal"] for name, data in members.items() if name.endswith(".json")]
    assert {(f["sampling_hz"], f["samples"], len(f["leads"]), sum(f["mask"])) for f in facts} == {
        (250.0, 1000, 12, 12),
        (250.0, 1000, 9, 9),
    }
    arrays = [np.load(io.BytesIO(data)) for name, data in members.items() if name.endswith(".npy")]
    assert {(a.dtype.name, a.shape) for a in arrays} == {("int16", (12, 1000))}
    with ShardReader(shards, "train") as reader:
        assert reader.holds == "signals"
        assert reader.preprocessing == {"ecg:signal": EcgAdapter(EcgOptions.raw()).preprocessing_of(Kind.SIGNAL)}
        assert "Recording(" in repr(reader[0])


def test_a_record_of_limb_leads_i_and_ii_tells_that_four_can_be_computed() -> None:
    leads = heart(500)
    data, facts = encode_signal(recording({lead: leads[lead] for lead in ("II", "I")}))
    assert facts["leads"] == ["I", "II"]
    assert facts["derived"] == ["III", "aVR", "aVL", "aVF"]
    assert facts["mask"] == [True] * 6 + [False] * 6
    assert decode_signal(data, facts).leads == ("I", "II")


@pytest.mark.parametrize(
    "wrong",
    [
        {"leads": ["II", "I"]},
        {"leads": []},
        {"leads": ["I", "X"]},
        {"samples": 499},
        {"sampling_hz": 0},
        {"sampling_hz": None},
    ],
)
def test_facts_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    data, facts = encode_signal(recording(heart(500)))
    with pytest.raises(MedclipError) as caught:
        decode_signal(data, {**facts, **wrong})
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize("values", [np.zeros((12, 500)), np.zeros((11, 500), np.int16), np.zeros((12, 0), np.int16)])
def test_other_arrays_are_refused(values: np.ndarray) -> None:
    _, facts = encode_signal(recording(heart(500)))
    with pytest.raises(MedclipError) as caught:
        decode_signal(encode_array(values), {**facts, "samples": values.shape[1]})
    assert caught.value.reason is Reason.CORRUPT


def test_what_is_no_ecg_or_shows_nothing_is_rejected_with_its_reason(tmp_path: Path) -> None:
    write_wfdb(tmp_path, heart(1000), name="good")
    write_wfdb(tmp_path, {lead: line * 0 for lead, line in heart(1000).items()}, name="flat")
    write_wfdb(tmp_path, {"ECG": heart(1000)["I"]}, name="none")
    write_edf(tmp_path / "eeg.edf", {"EEG Fpz-Cz": (heart()["I"] * 100).astype(int)})
    (tmp_path / "cut.hea").write_text((tmp_path / "good.hea").read_text().replace("good", "cut"))
    (tmp_path / "cut.dat").write_bytes((tmp_path / "good.dat").read_bytes()[:100])
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(tmp_path / name)
    files = ["good.hea", "flat.hea", "none.hea", "eeg.edf", "cut.hea", "a.png", "b.png", "gone.hea"]
    modality = ["ecg"] * 6 + ["xray", "ecg"]
    table = pd.DataFrame({"file": files, "patient": [str(n) for n in range(8)], "modality": modality})
    report = build_shards(
        table,
        tmp_path / "s",
        Form(key=b"k" * 32, stores="signals"),
        images=tmp_path,
        splits={"train": 1.0},
        settings=SETTINGS,
    )
    assert report.num_samples == 1
    assert report.counts_by_reason == {
        "constant_image": 1,
        "missing_file": 1,
        "not_an_image": 2,
        "not_supported_yet": 1,
        "other_input": 1,
        "truncated": 1,
    }


def test_a_check_reads_every_record(shards: Path, tmp_path: Path) -> None:
    assert check_shards(shards).ok
    damaged = signal_shards(tmp_path, ("train",))
    tar = next(damaged.glob("train-*.tar"))
    tar.write_bytes(tar.read_bytes().replace(b"<i2", b"<f2", 1))
    assert any("cannot be read" in problem for problem in check_shards(damaged).problems)


def test_folders_of_images_and_of_ecgs_do_not_go_together_nor_volumes_and_ecgs(shards: Path, tmp_path: Path) -> None:
    images = make_shards(tmp_path)
    with pytest.raises(MedclipError, match="holds images where the first folder holds ECGs") as caught:
        ShardReader([shards, images], "train")
    assert caught.value.where == str(images)
    with pytest.raises(MedclipError, match="volumes or ECGs, not both"):
        medclip.shards.build(pd.DataFrame(), tmp_path / "x", volumes=True, signals=True)


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (signal_shards(tmp_path / name, ("train",) * 2) for name in "ab")
    for tar in first.glob("*.tar"):
        assert tar.read_bytes() == (second / tar.name).read_bytes()


def test_gaps_are_stored_as_gaps_so_that_only_the_part_that_is_shown_decides_on_a_lead() -> None:
    leads = heart(3000)
    leads["V2"][:700] = np.nan  # 23 % of all, nothing of the middle
    data, facts = encode_signal(recording(leads))
    kept = decode_signal(data, facts)
    assert not facts["mask"][7]
    assert canonical(kept, seconds=2).mask.all()
    assert not canonical(kept).mask[7]
