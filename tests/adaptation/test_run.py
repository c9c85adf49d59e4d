"""The whole adaptation, on a tiny pack: `medclip.adapt`, its figures, and scoring with what it makes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import medclip
from medclip import lazy
from medclip.adaptation.data.heads import HEADS, ArrayHead
from medclip.adaptation.data.shot_features import take
from medclip.adaptation.methods import METHODS, Fitted, Method, of_labels
from medclip.adaptation.run import AdaptRun
from medclip.api.adapt import adapt
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.evaluation.adapted_figures import AdaptedFigures, notes_of
from medclip.models.packs.card import read_card
from medclip.models.packs.manifest import file_sha256
from medclip.models.packs.pack import load_model
from medclip.reports.few_shot import write_compare_report
from medclip.scoring.exam_scores import probability_on_grid
from medclip.settings import Settings
from tests.kits import scoring
from tests.kits.adapt_tables import image, make_pack, make_table, tiny, write_table
from tests.kits.embeddings import embed_files
from tests.kits.few_shot import compare_methods

__all__ = ["tiny"]
NAMES = ("clear", "hazy", "no finding")
QUICK = {
    **{key: {"num_vectors": 2, "epochs": 2} for key in ("coop", "biomedcoop", "cocoop")},
    "ranking": {"width": 8, "epochs": 1},
}


def go(model: Any, table: Path, labels: Sequence[str] | str = "finding", **options: Any) -> AdaptRun:
    values = {"method": "tip", "shots": 3, "workers": 1, "test_share": 0.3, **options}
    return adapt(table, labels, model=model, **values)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("data"), NAMES, patients=10)


@pytest.fixture(scope="module")
def run(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> AdaptRun:
    return go(tiny, data, out=tmp_path_factory.mktemp("out") / "pack")


def test_shots_and_test_patients_share_nobody_and_the_test_says_what_it_is_over(run: AdaptRun):
    assert [len(run.drawn.train), len(run.drawn.val), len(run.test.numbers)] == [9, 9, 9]
    assert not {s.patient for s in run.adapted.shots} & set(run.test.patients)
    assert not {s.sha256 for s in run.adapted.shots} & set(run.test.sha256)
    assert run.adapted.num_by_class == {"clear": 3, "hazy": 3, "no_finding": 3}
    assert set(run.seconds) == {"reading", "learning", "scoring"}
    assert not run.problems


def test_scoring_with_the_pack_gives_exactly_the_probabilities_of_the_test_files(
    run: AdaptRun, data: Path, tmp_path: Path
):
    # A machine without MEDCLIP_TASKS: the pack brings its task along.
    scored = score(data.parent, tmp_path / "out", model=run.folder, modality="xray", group_by="file", workers=1)
    of_study = {f["study"]: f["sha256"] for f in scored.files.to_pylist()}
    found: dict[str, dict[str, float]] = {}
    for row in scored.scores.to_pylist():
        if row["task"] == "finding":
            found.setdefault(of_study[row["study"]], {})[row["class"]] = row["probability"]
    assert {row["model"] for row in scored.scores.to_pylist()} == {"tiny-finding-tip"}
    for sha, probability in zip(run.test.sha256, run.test.probabilities_NC, strict=True):
        assert list(found[sha].values()) == [probability_on_grid(p) for p in probability]
        assert list(found[sha]) == ["clear", "hazy", "no_finding"]


def test_the_report_shows_the_classes_and_what_it_was_adapted_from(run: AdaptRun, data: Path, tmp_path: Path):
    page = score(data.parent / "clear", tmp_path / "out", model=run.folder, modality="xray", workers=1).report_path
    text = page.read_text(encoding="utf-8")
    assert "adapted with Tip-Adapter from 3 patients of each class (9 files in all)" in text
    assert "No finding" in text
    assert "MRN" not in text


def test_the_task_of_the_pack_goes_first_and_can_be_asked_for_alone(run: AdaptRun, data: Path, tmp_path: Path):
    every = score(data.parent / "hazy", tmp_path / "a", model=run.folder, modality="xray", workers=1).scores
    assert list(dict.fromkeys(every.column("task").to_pylist())) == ["finding", "chest_xray_view"]
    alone = score(data.parent / "hazy", tmp_path / "b", model=run.folder, modality="xray", workers=1, task="finding")
    assert set(alone.scores.column("task").to_pylist()) == {"finding"}
    with pytest.raises(MedclipError, match="Tasks are: finding, "):
        score(data.parent / "hazy", tmp_path / "c", model=run.folder, task="findings")


@pytest.mark.parametrize("method", ["tip", "norm"])
def test_the_same_call_gives_the_same_bytes_on_another_day_with_another_number_of_readers(
    method: str, tiny: Path, data: Path, tmp_path: Path
):
    options = {"steps": 2, "batch_size": 4} if method == "norm" else {}
    packs = [go(tiny, data, method=method, overrides=options, out=tmp_path / str(n), workers=n).folder for n in (1, 2)]
    one, two = ({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pack.iterdir()} for pack in packs)
    assert one == two


@pytest.mark.parametrize("method", [method.name for method in of_labels()])
def test_every_methods_pack_and_checkpoint_answer_as_was_measured(method: str, tiny: Path, tmp_path: Path):
    from medclip.adaptation.pack.adapted_model import Adapted

    quick = {"steps": 2, "batch_size": 4} if METHODS[method].trains_towers else QUICK.get(method, {})
    table = make_table(tmp_path / "in", ("ap", "pa"), patients=6)
    places = {"out": tmp_path / "pack", "checkpoint": tmp_path / "small"}
    order = "pa,ap" if METHODS[method].of_steps else ()
    run = go(tiny, table, method=method, shots=2, overrides=quick, order=order, **places)
    pixels = [np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)]
    kept = Adapted.load(tmp_path / "small", tiny)
    np.testing.assert_array_equal(kept.predict_logits(pixels), run.adapted.predict_logits(pixels))
    scored = score(tmp_path / "in", model=run.folder, modality="xray", group_by="file", task="finding", workers=1)
    study = {f["sha256"]: f["study"] for f in scored.files.to_pylist()}
    rows = scored.scores.to_pylist()
    for sha, probability in zip(run.test.sha256, run.test.probabilities_NC, strict=True):
        assert [r["probability"] for r in rows if r["study"] == study[sha]] == [
            probability_on_grid(p) for p in probability
        ]


def test_the_figures_stand_beside_zero_shot_and_in_the_card(run: AdaptRun):
    figures = run.measured
    assert isinstance(figures, AdaptedFigures)
    assert list(figures.figures) == ["balanced_accuracy", "accuracy", "macro_auroc"]
    right = (run.test.logits_NC.argmax(axis=1) == run.test.targets).mean()
    assert figures.figures["accuracy"].adapted.value == pytest.approx(right)
    kept = read_card(run.folder).tasks["finding"].metrics["balanced_accuracy"]
    assert kept["adapted"]["num_patients"] == 9
    assert set(kept) == {"adapted", "zero_shot"}
    assert figures.lines()[0].split() == ["zero-shot", "adapted", "difference"]
    json.dumps(figures.to_json())


def test_a_shot_that_cannot_be_read_is_replaced_and_said(tiny: Path, data: Path, tmp_path: Path):
    whole = go(tiny, data)
    bad = whole.units[whole.drawn.train[0]]
    table = make_table(tmp_path, NAMES, patients=10)
    (tmp_path / bad.file).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    tested = whole.units[whole.division.test[0]]
    (tmp_path / tested.file).write_bytes(b"")
    run = go(tiny, table)
    assert len(run.drawn.train) == len(whole.drawn.train)
    assert len(set(whole.drawn.train) - set(run.drawn.train)) == 1
    assert any("1 shot could not be read (truncated 1)" in note for note in run.notes)
    assert run.problems == {"empty_file": 1, "truncated": 1}
    assert len(run.test.numbers) == 8


def test_shots_of_which_none_can_be_read_end_it_with_the_commonest_reason(tiny: Path, data: Path, tmp_path: Path):
    with pytest.raises(
        MedclipError, match=r"not one of the first 18 shots could be read \(missing file 18\)"
    ) as refused:
        go(tiny, data, images=tmp_path)
    assert refused.value.reason is Reason.MISSING_FILE
    assert "--images" in refused.value.hint
    table = make_table(tmp_path / "in", patients=4)
    for file in (tmp_path / "in" / "hazy").iterdir():
        file.write_bytes(b"")
    with pytest.raises(MedclipError, match=r"no patient with the class hazy is left to learn from \(empty file 3\)"):
        go(tiny, table, test_share=0.25)


def test_a_model_whose_features_are_no_numbers_is_said_so(tiny: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    model = load_model(tiny)
    monkeypatch.setattr(model, "encode_image", lambda images: np.full((len(images), model.dim), np.nan, np.float32))
    with pytest.raises(MedclipError, match="features of this image are not finite") as refused:
        go(model, data)
    assert refused.value.reason is Reason.NON_FINITE


def test_the_same_bytes_on_both_sides_under_another_name_are_refused(tiny: Path, data: Path, tmp_path: Path):
    whole = go(tiny, data)
    table = make_table(tmp_path, NAMES, patients=10)
    shot, tested = (whole.units[rows[0]].file for rows in (whole.drawn.train, whole.division.test))
    (tmp_path / tested).write_bytes((tmp_path / shot).read_bytes())
    with pytest.raises(MedclipError, match="1 test file is byte for byte among the shots") as refused:
        go(tiny, table)
    assert refused.value.reason is Reason.PATIENT_OVERLAP


def test_test_files_that_the_base_was_trained_on_are_not_tested_on(data: Path, tiny: Path, tmp_path: Path):
    import shutil

    from medclip.models.packs.pack import update_pack

    first = go(tiny, data)
    seen = first.test.sha256[:2]
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    update_pack(base, extra_files={"train_hashes.txt": "".join(f"{sha}\n" for sha in seen).encode()})
    run = go(base, data)
    assert (run.measured.num_files, run.measured.num_left_out) == (7, 2)
    assert any("2 of 9 test files are not tested on" in note for note in notes_of(run))
    update_pack(base, extra_files={"train_hashes.txt": "".join(f"{sha}\n" for sha in first.test.sha256).encode()})
    every = go(base, data)
    assert (every.measured.num_files, every.measured.num_left_out) == (9, 0)
    assert any("are too good" in note for note in notes_of(every))


def test_shots_that_the_base_was_trained_on_are_counted_in_notes_and_card(data: Path, tiny: Path, tmp_path: Path):
    import shutil

    from medclip.models.packs.pack import update_pack

    seen = [shot.sha256 for shot in go(tiny, data).adapted.shots[:3]]
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    update_pack(base, extra_files={"train_hashes.txt": "".join(f"{sha}\n" for sha in seen).encode()})
    run = go(base, data, out=tmp_path / "pack")
    assert any(note.startswith("3 of 18 shots were among the base's training files") for note in run.notes)
    card = read_card(tmp_path / "pack")
    assert card.adapted is not None
    assert card.adapted.num_in_training == 3
    assert any("3 of 18 shots" in limit for limit in card.limits)


def test_training_that_ran_away_is_said(tiny: Path, data: Path):
    run = go(tiny, data, method="norm", overrides={"lr": 100.0, "steps": 2})
    assert any(note.startswith("It learned nothing") for note in run.notes)


def test_a_pack_or_checkpoint_of_something_else_is_replaced_only_when_asked(tiny: Path, data: Path, tmp_path: Path):
    places = {"out": tmp_path / "pack", "checkpoint": tmp_path / "small"}
    go(tiny, data, **places)
    before = file_sha256(tmp_path / "pack" / "card.json")
    go(tiny, data, **places)  # the same adaptation: equal bytes
    assert file_sha256(tmp_path / "pack" / "card.json") == before
    other = make_table(tmp_path / "in", ("clear", "hazy"), patients=8)
    for table, options in (
        (data, {"method": "ridge"}),
        (data, {"seed": 1}),
        (data, {"shots": 2}),
        (other, {}),
        (data, {"overrides": {"alpha": 3.0}}),
    ):
        for place in ("out", "checkpoint"):
            with pytest.raises(MedclipError, match="--overwrite") as refused:
                go(tiny, table, **{place: places[place]}, **options)
            assert refused.value.reason is Reason.OUTPUT_IN_USE
    assert file_sha256(tmp_path / "pack" / "card.json") == before
    go(tiny, data, method="ridge", overwrite=True, **places)
    assert read_card(tmp_path / "pack").adapted.method == "ridge"
    with pytest.raises(MedclipError, match="holds another model pack"):
        go(tiny, data, out=places["out"])


def test_a_pack_that_was_not_adapted_is_not_replaced_unasked(tiny: Path, data: Path, tmp_path: Path):
    import shutil

    shutil.copytree(tiny, tmp_path / "mine")
    with pytest.raises(MedclipError, match="holds another model pack"):
        go(tiny, data, out=tmp_path / "mine")


@pytest.mark.parametrize(("out", "checkpoint"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_pack_and_checkpoint_lie_apart(out: str, checkpoint: str, tiny: Path, data: Path, tmp_path: Path):
    with pytest.raises(MedclipError, match="--out and --checkpoint") as refused:
        go(tiny, data, out=tmp_path / out, checkpoint=tmp_path / checkpoint)
    assert refused.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="the base"):
        go(tiny, data, out=tiny / "inside")


def test_findings_are_each_for_themselves_and_unknown_labels_are_left_out(tiny: Path, tmp_path: Path):
    rows = []
    for n in range(40):
        image(tmp_path / f"{n}.png", n % 2, n)
        labels = {"mass": n % 2, "edema": "" if n % 3 == 0 else int(n % 4 > 1), "hernia": int(n == 0)}
        rows.append({"file": f"{n}.png", "patient": n, "modality": "xray", **labels})
    table = write_table(tmp_path / "t.csv", rows)
    run = go(tiny, table, ["mass", "edema", "hernia"], method="linear-probe", shots=4, out=tmp_path / "pack")
    assert run.test.targets.shape == (len(run.test.numbers), 3)
    assert set(run.measured.by_class) == {"mass", "edema"}
    assert any(note.startswith("With hernia: ") for note in run.notes)
    assert any("Too few test patients with or without: hernia" in note for note in notes_of(run))
    scored = score(tmp_path / "1.png", tmp_path / "out", model=run.folder, modality="xray", workers=1).scores
    assert [r["class"] for r in scored.to_pylist() if r["task"] == "findings"] == ["mass", "edema", "hernia"]


def test_one_finding_alone_has_an_area_under_its_own_name(tiny: Path, tmp_path: Path):
    rows = [
        {"file": str(image(tmp_path / f"{n}.png", n % 2, n).name), "patient": n, "modality": "xray", "ill": n % 2}
        for n in range(24)
    ]
    run = go(tiny, write_table(tmp_path / "t.csv", rows), "ill")
    assert next(iter(run.measured.figures)) == "auroc"


def test_no_test_patients_give_a_pack_without_figures(tiny: Path, data: Path, tmp_path: Path):
    run = go(tiny, data, test_share=0, out=tmp_path / "pack")
    assert run.measured.figures == {}
    assert "Nobody is tested on: the pack has no figures." in run.notes
    assert read_card(run.folder).tasks["finding"].metrics == {}


def test_a_base_without_the_modalitys_preprocessing_is_said_and_the_pack_scores_it(tiny: Path, tmp_path: Path):
    table = make_table(tmp_path / "in", patients=6, modality="dermatology")
    run = go(tiny, table, out=tmp_path / "pack")
    assert any("not say that it was trained on dermatology" in note for note in run.notes)
    scored = score(tmp_path / "in" / "clear", tmp_path / "out", model=run.folder, modality="dermatology", workers=1)
    assert set(scored.scores.column("task").to_pylist()) == {"finding"}


def test_a_base_of_others_without_lists_and_hashes_can_be_adapted(data: Path, tmp_path: Path):
    base = make_pack(
        tmp_path / "imported",
        ways={},
        tasks={},
        train_hashes_file=None,
        patient_hashes_file=None,
        created_from={"imported_from": "weights.pt"},
    )
    run = go(base, data, out=tmp_path / "pack")
    card = read_card(run.folder)
    assert load_model(run.folder).preprocess.adapters.keys() == {"xray"}
    assert list(card.tasks) == ["finding"]
    assert any("does not list its training files" in limit for limit in card.limits)
    assert len((run.folder / "train_hashes.txt").read_text().split()) == len(run.adapted.shots)


def test_nothing_in_the_pack_names_a_patient_a_file_or_a_folder(run: AdaptRun, data: Path):
    everything = b"".join(p.read_bytes() for p in run.folder.iterdir() if p.suffix != ".safetensors")
    for secret in ("MRN", data.parent.name, "table.csv", ".png"):
        assert secret.encode() not in everything


@pytest.mark.parametrize(
    ("options", "reason", "said"),
    [
        ({"method": "magic"}, Reason.WRONG_USE, "Methods are: zero-shot"),
        ({"overrides": {"colour": 1}}, Reason.WRONG_USE, "no such option"),
        ({"method": "svd", "overrides": {"lr": "abc"}}, Reason.WRONG_USE, "the option lr of svd is 'abc'"),
        ({"method": "svd", "overrides": {"layers": 99, "steps": 1}}, Reason.WRONG_USE, "no layers in 'blocks 99'"),
        ({"device": "nowhere"}, Reason.WRONG_USE, "cannot compute on the device"),
        ({"images": "nope"}, Reason.MISSING_FILE, "no such folder"),
        ({"patient": "finding"}, Reason.WRONG_USE, "cannot name both"),
        ({"shots": 0}, Reason.WRONG_USE, "shots is at least 1, not 0"),
        ({"model": "nobody"}, Reason.PACK_NOT_FOUND, "nobody"),
        ({"labels": "colour"}, Reason.TABLE_INVALID, "'colour'"),
        ({"key_file": Path("no.key")}, Reason.WRONG_USE, "no such key file"),
    ],
)
def test_wrong_use_is_refused_with_a_sentence(options, reason, said, tiny: Path, data: Path):
    with pytest.raises(MedclipError, match=said) as refused:
        go(**{"model": tiny, "table": data, **options})
    assert refused.value.reason is reason


def test_a_loaded_model_and_a_small_checkpoint_are_as_good_as_a_pack(tiny: Path, data: Path, tmp_path: Path):
    from medclip.adaptation.pack.adapted_model import Adapted

    run = go(load_model(tiny), data, checkpoint=tmp_path / "small", settings=Settings(workers=1))
    loaded = Adapted.load(tmp_path / "small", tiny)
    assert loaded.shots == run.adapted.shots
    assert file_sha256(tmp_path / "small" / "adapted.safetensors")


def test_scoring_imports_no_torch_for_what_it_looks_up_first():
    code = (
        "import sys, medclip.scoring.tasks, medclip.adaptation.pack.pack_head; raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_are_given_for_every_test_row(run: AdaptRun):
    assert np.isfinite(run.test.logits_NC).all()
    assert len(run.test.probabilities_NC) == len(run.test.numbers)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [("lora", {}, "LoRA needs peft"), ("svd", {"layers": 99}, "no layers"), ("tip", {"alpha": 1.0}, "one of alpha")],
)
def test_what_cannot_be_learned_is_refused_before_an_image_is_read(
    method: str, options: dict[str, Any], said: str, tiny: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr(
        "medclip.models.encoding.unit_reader.UnitReader.read", lambda *_, **__: pytest.fail("an image was read")
    )
    with pytest.raises(MedclipError, match=said):
        go(tiny, data, method=method, overrides=options)
    asked = ":".join([method, *(f"{k}={v}" for k, v in options.items())])
    with pytest.raises(MedclipError, match=said):
        compare_methods(tiny, data, "finding", methods=["zero-shot", asked], out=data.parent / "never")


@pytest.fixture(scope="module")
def store(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embed_files(tmp_path_factory.mktemp("store") / "e", tiny, data.parent)


@pytest.mark.parametrize("method", ["tip", "linear-probe", "clip-adapter"])
def test_a_pack_from_embeddings_has_the_bytes_of_one_from_files(
    method: str, tiny: Path, data: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = {"method": method}
    files = go(tiny, data, out=tmp_path / "files", **options)
    monkeypatch.setattr(
        "medclip.models.encoding.unit_reader.UnitReader.read", lambda *_, **__: pytest.fail("an image was read")
    )
    stored = go(tiny, data, out=tmp_path / "stored", images=store, **options)
    assert stored.notes == files.notes
    for path in files.folder.iterdir():
        assert (stored.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_was_not_embedded_is_counted_and_its_shot_replaced(tiny: Path, data: Path, tmp_path: Path):
    copy = shutil.copytree(data.parent, tmp_path / "some")
    for path in sorted(copy.rglob("*.png"))[::5]:
        path.unlink()
    run = go(tiny, data, images=embed_files(tmp_path / "e", tiny, copy))
    assert set(run.problems) == {"missing_file"}
    assert len(run.drawn.train) == 9


def test_embeddings_are_refused_before_anything_is_read(tiny: Path, data: Path, store: Path, tmp_path: Path):
    with pytest.raises(
        MedclipError, match="LoRA learns in the towers, and a folder of embeddings holds no images"
    ) as e:
        go(tiny, data, images=store, method="lora")
    assert e.value.reason is Reason.WRONG_USE
    assert "tip-f" in e.value.hint
    with pytest.raises(MedclipError, match="of another pack"):
        go(scoring.make_pack(tmp_path / "other"), data, images=store)
    same_tower = make_pack(tmp_path / "same", version="8")
    assert go(same_tower, data, images=store).test.numbers
    with pytest.raises(MedclipError, match="LoRA and Full fine-tuning learn in the towers"):
        compare_methods(tiny, data, "finding", out=tmp_path / "c", methods=["tip", "lora", "full"], folder=store)
    assert not (tmp_path / "c").exists()


def test_a_comparison_from_embeddings_has_the_figures_of_one_from_files(
    tiny: Path, data: Path, store: Path, tmp_path: Path
):
    options = {
        "methods": ["zero-shot", "tip"],
        "shots": [1, 2],
        "seeds": 2,
        "num_replicates": 50,
        "settings": Settings(workers=1),
    }
    results = [
        compare_methods(tiny, data, "finding", out=tmp_path / name, folder=folder, num_workers=n, **options)
        for name, folder, n in (("files", None, 1), ("stored", store, 2))
    ]
    assert results[0].result.cells == results[1].result.cells
    page = write_compare_report(results[1], tmp_path / "stored")
    assert "data:image/jpeg" not in page.read_text(encoding="utf-8")


@dataclass(frozen=True, eq=False)
class NearestMeanHead(ArrayHead):
    """A head of this test: the cosine with the mean of each class, times `scale`."""

    means_CD: NDArray[np.float32]
    scale: float
    kind: ClassVar[str] = "nearest_mean"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        return np.float32(self.scale) * (np.asarray(features_ND, np.float32) @ self.means_CD.T)


def fit_nearest_mean(base: Any, text: Any, train: Any, val: Any, *, seed: int, scale: float = 20.0) -> Fitted:
    """A method of this test."""
    shots = take(base, text, train, val, "pooled")
    rows, targets = shots.rows(train)
    means = np.stack([rows[targets == c].mean(axis=0) for c in range(len(shots.names))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return Fitted(NearestMeanHead(means.astype(np.float32), scale), means.size, {"scale": scale})


NEAREST_MEAN = Method("nearest-mean", "Nearest mean", f"{__name__}:fit_nearest_mean")


@pytest.mark.parametrize("way", ["a row of the table", "an entry point of another package"])
def test_a_method_and_a_head_of_ones_own_are_adapted_with_scored_with_and_compared(
    way: str, tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = {"medclip.methods": f"{__name__}:NEAREST_MEAN", "medclip.heads": f"{__name__}:NearestMeanHead"}
    if way == "a row of the table":
        monkeypatch.setitem(METHODS, "nearest-mean", NEAREST_MEAN)
        monkeypatch.setitem(HEADS, "nearest_mean", rows["medclip.heads"])
    else:
        names = {"medclip.methods": "nearest-mean", "medclip.heads": "nearest_mean"}
        monkeypatch.setattr(lazy, "_entries", lambda group: {names[group]: rows[group]} if group in rows else {})
    run = go(tiny, data, method="nearest-mean", overrides=["scale=9"], out=tmp_path / "pack")
    scored = score(data.parent, tmp_path / "out", model=run.folder, modality="xray", group_by="file", workers=1)
    shas = {f["study"]: f["sha256"] for f in scored.files.to_pylist()}
    wanted = dict(zip(run.test.sha256, run.test.probabilities_NC, strict=True))
    rows_of = [row for row in scored.scores.to_pylist() if row["task"] == "finding" and shas[row["study"]] in wanted]
    assert len(rows_of) == 3 * len(wanted)
    for row in rows_of:
        probability = wanted[shas[row["study"]]][["clear", "hazy", "no_finding"].index(row["class"])]
        assert row["probability"] == probability_on_grid(probability)
    with pytest.raises(MedclipError, match="nearest-mean has no such option as 'scales'"):
        go(tiny, data, method="nearest-mean", overrides=["scales=9"])
    medclip.compare(
        data,
        "finding",
        model=tiny,
        out=tmp_path / "compared",
        method=["nearest-mean", "zero-shot"],
        shots=[1],
        num_seeds=2,
        workers=1,
        test_share=0.3,
    )
    assert "Nearest mean" in (tmp_path / "compared" / "report.html").read_text(encoding="utf-8")


def test_a_pack_of_steps_sorts_a_worklist_by_the_expected_step(tiny: Path, tmp_path: Path):
    table = make_table(tmp_path / "in", ("none", "mild", "severe"), patients=4)
    run = go(tiny, table, method="proportional-odds", shots=2, order="none,mild,severe", out=tmp_path / "pack")
    folder = tmp_path / "in"
    ask = {"model": run.folder, "modality": "xray", "group_by": "file", "task": "finding", "workers": 1}
    scored = score(folder, tmp_path / "out", **ask, report={"sort_by": "finding"})
    chances: dict[str, dict[str, float]] = {}
    for row in scored.scores.to_pylist():
        chances.setdefault(row["study"], {})[row["class"]] = row["probability"]
    expected = {study: p["mild"] + 2 * p["severe"] for study, p in chances.items()}
    page = (tmp_path / "out" / "report.html").read_text()
    order = re.findall(r'title="Keyed hash of the study">(\w+)<', page)
    assert order == sorted(order, key=lambda study: -round(expected[study], 6))
    assert set(order) == set(expected)
    assert f"expected step {expected[order[0]]:.1f} of 0 (None) to 2 (Severe)" in page
    (one,) = score(folder / "mild" / "00_0.png", **ask).answers
    assert 0 <= one["answers"][0]["expected_step"] <= 2
