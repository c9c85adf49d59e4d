"""The fastest back-end that leaves a pack's scores as they are is chosen, and runs are bound to it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.backends import backend_calibration as calibration_module
from medclip.models.backends.backend_calibration import Calibration, Candidate, check_calibration, read_calibration
from medclip.models.backends.choice import BackendChoice, calibration_home
from medclip.models.backends.known import BACKENDS, BackendKind
from medclip.models.model import Model
from medclip.models.packs.pack import load_model, pack_card, update_pack
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Modality
from medclip.scoring import calibrate_backend as calibrate_module
from medclip.scoring.backend_changes import Change
from medclip.scoring.calibrate_backend import NamedImage, calibrate_backends, spread_out
from medclip.settings import Settings
from tests.kits.progress import Recorded
from tests.kits.scoring import make_pack, write_png


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed in range(16):
        write_png(folder / f"{seed:02d}.png", seed)
    return folder


@pytest.fixture(scope="module")
def calibrated(pack: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """With ONNX Runtime as the only one to try, where it is installed. Read only."""
    _needs_onnx()
    out = tmp_path_factory.mktemp("calibrated") / "here"
    return medclip.models.calibrate(pack, images=films, modality="xray", out=out, candidate="onnx", workers=1)


def _needs_onnx() -> None:
    if lacking := BACKENDS["onnx"].lacking():
        pytest.skip(lacking)


def test_a_calibration_says_what_was_measured_and_is_read_back_as_it_was(calibrated: Calibration) -> None:
    assert calibrated.folder is not None
    assert read_calibration(calibrated.folder) == calibrated
    assert read_calibration(calibrated.folder / "calibration.json") == calibrated
    assert [candidate.name for candidate in calibrated.candidates] == ["eager", "onnx"]
    assert (calibrated.num_images, calibrated.num_held_out, calibrated.num_patients) == (16, 8, 0)
    assert calibrated.judged.largest_change <= 1e-5
    assert {c.name for c in calibrated.candidates if c.held_out} >= {calibrated.choice}
    assert calibrated.tasks == ("chest_xray_view", "chest_xray_findings")
    assert calibrated.candidates[1].largest_change <= 1e-5
    assert all(candidate.cpu_ms > 0 and candidate.least_cosine > 0.99999 for candidate in calibrated.candidates)
    assert calibrated.chosen.name in repr(calibrated)
    assert len(calibrated.to_pandas()) == 2


def test_a_run_with_a_calibration_says_its_bound_and_is_another_run_than_one_without(
    pack: Path, films: Path, calibrated: Calibration, tmp_path: Path
) -> None:
    chosen = _chosen(calibrated, "onnx", tmp_path)
    run = medclip.score(films, tmp_path / "o", model=pack, modality="xray", workers=1, backend=chosen)
    plain = medclip.score(films, tmp_path / "p", model=pack, modality="xray", workers=1)
    np.testing.assert_allclose(run.scores["probability"], plain.scores["probability"], atol=1e-4)
    (note,) = [note for note in run.notes if "calibration" in note]
    assert "ONNX Runtime, float32" in note
    assert "8 images" in note
    assert "(0.001 allowed)" in note
    assert (
        "31.2 % of others change by more than 0.001 (95 % limit; images are counted as if each" in note
    )  # none of eight
    backend = json.loads((tmp_path / "o" / "run.json").read_text())["options"]["backend"]
    assert backend["name"] == "onnx"
    assert backend["calibration"]["graph"] == calibrated.graph or not calibrated.graph
    assert "backend" not in json.loads((tmp_path / "p" / "run.json").read_text())["options"]
    assert medclip.score(films, tmp_path / "o", model=pack, modality="xray", backend=chosen).already_finished
    for folder, backend in (("o", None), ("p", chosen)):
        with pytest.raises(MedclipError, match="--backend differs") as caught:
            medclip.score(films, tmp_path / folder, model=pack, modality="xray", backend=backend)
        assert caught.value.reason is Reason.OUTPUT_IN_USE


def test_embeddings_remember_their_back_end_for_the_questions_that_are_put_to_them(
    pack: Path, films: Path, tmp_path: Path
) -> None:
    _needs_onnx()
    embeddings = medclip.embed(films, tmp_path / "e", model=pack, modality="xray", workers=1, backend="onnx")
    for out in (None, tmp_path / "scored"):
        run = medclip.score(embeddings, out, model=pack, task="chest_xray_view")
        assert any("without a calibration" in note for note in run.notes)
    with pytest.raises(MedclipError, match="no image is computed"):
        medclip.score(embeddings, model=pack, backend="onnx")


def test_auto_takes_the_calibration_in_the_settings_home_and_asks_for_one_where_there_is_none(
    pack: Path, films: Path, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path / "home", workers=1)
    with pytest.raises(MedclipError, match="medclip models calibrate") as caught:
        medclip.score(films, model=pack, modality="xray", backend="auto", settings=settings)
    assert caught.value.reason is Reason.MISSING_FILE
    medclip.models.calibrate(pack, images=films, modality="xray", candidate="eager", settings=settings)
    run = medclip.score(films, model=pack, modality="xray", backend="auto", settings=settings)
    assert run.scores.equals(medclip.score(films, model=pack, modality="xray", settings=settings).scores)


def test_a_back_end_that_breaks_its_bound_is_not_chosen_however_fast(
    pack: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kind = load_model(pack), replace(BACKENDS["bf16"], flags=())
    monkeypatch.setitem(BACKENDS, "bf16", kind)  # type: ignore[arg-type]
    monkeypatch.setattr(
        calibrate_module, "load_backend", lambda model, kind, graph: model if kind.name == "eager" else _wrong(model)
    )
    images = [NamedImage(path, Modality.XRAY) for path in sorted(films.iterdir())]
    calibration, graph = calibrate_backends(model, images, ScoreOptions(), [kind], Settings(workers=1), Recorded())
    assert calibration.choice == "eager"
    assert graph is None
    assert "0.001 allowed" in calibration.candidates[1].refused
    assert calibration.candidates[1].times_as_fast > 1
    assert [candidate.num_images for candidate in calibration.candidates] == [8, 8]


def test_a_back_end_that_breaks_its_bound_on_images_held_out_alone_is_refused_there(
    pack: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is exact for the images that choose, and wrong for the next patients."""
    import torch

    model, kind = load_model(pack), replace(BACKENDS["bf16"], flags=())
    monkeypatch.setitem(BACKENDS, "bf16", kind)  # type: ignore[arg-type]
    known: set[bytes] = set()

    def remembers(batch: torch.Tensor) -> torch.Tensor:
        for image in batch:
            if len(known) < 8:  # so many choose
                known.add(image.numpy().tobytes())
        if not all(image.numpy().tobytes() in known for image in batch):
            return torch.ones(len(batch), model.dim)
        return model.image_tower(batch)

    monkeypatch.setattr(
        calibrate_module,
        "load_backend",
        lambda model, kind, graph: model if kind.name == "eager" else model.with_image_tower(remembers),
    )
    _cost_images(monkeypatch, {"eager": 0.02, "bf16": 0.01})
    images = [NamedImage(path, Modality.XRAY, f"patient {n // 2}") for n, path in enumerate(sorted(films.iterdir()))]
    measured, _ = calibrate_backends(model, images, ScoreOptions(), [kind], Settings(workers=1), Recorded())
    assert measured.choice == "eager"
    assert (measured.num_patients, measured.num_held_out, measured.num_held_out_patients) == (8, 8, 4)
    note = BackendChoice(kind, measured).notes[0]
    assert "On 8 images of 4 patients that its calibration held out" in note
    assert "images of 52.7 % of other patients" in note, "none of four patients: 1 - 0.05 ** (1 / 4)"
    assert measured.candidates[1].refused.startswith("on images held out a probability changed by")
    assert measured.candidates[1].largest_change == 0


def _cost_images(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Let an image cost each back-end so many seconds of the clock that a calibration reads."""
    timed = calibrate_module._time

    def time_them(loaded: Any, *rest: Any) -> tuple[dict[str, list[float]], Any]:
        measured, features = timed(loaded, *rest)
        return {name: [seconds[name]] * len(rounds) for name, rounds in measured.items()}, features

    monkeypatch.setattr(calibrate_module, "_time", time_them)


def _wrong(model: Model) -> Model:
    """A tower that takes no time and says the same of every image."""
    import torch

    return model.with_image_tower(lambda batch: torch.ones(len(batch), model.dim))


def test_scales_that_are_set_on_images_come_from_a_calibration_alone(
    pack: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "openvino-int8"
    if lacking := BACKENDS[name].lacking():
        pytest.skip(lacking)
    with pytest.raises(MedclipError, match="are set on images") as caught:
        medclip.score(films, model=pack, modality="xray", backend=name)
    assert "models calibrate" in caught.value.hint
    calibration = medclip.models.calibrate(
        pack, images=films, modality="xray", out=tmp_path / "c", candidate=name, workers=1, task="chest_xray_view"
    )
    (measured,) = [candidate for candidate in calibration.candidates if candidate.name == name]
    assert measured.largest_change > 0
    assert ("0.01 allowed" in measured.refused) == (measured.largest_change > 0.01)
    assert measured.least_cosine > 0.9  # four images set the scales here
    assert capsys.readouterr().out == ""  # NNCF draws bars and logs of its own


@pytest.mark.parametrize(("run_images", "choice"), [(1_000, "eager"), (11_000, "eager"), (13_000, "compiled")])
def test_what_a_run_pays_to_compile_has_to_come_back_within_its_images(
    run_images: int, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 s for 5 ms an image: they come back after 12,000 images, but for the margin of 5 %."""
    monkeypatch.setattr(calibrate_module, "MARGIN", 1.0)
    monkeypatch.setattr(calibrate_module, "_change", lambda *_: (Change(0.0, "t:c", 0, 0), 1.0))
    candidates = tuple(
        Candidate(name, 1e-3, 0.0, "t:c", 0, 0, 1.0, cpu_ms, 10.0 / cpu_ms, start_s)
        for name, cpu_ms, start_s in (("eager", 10.0, 0.0), ("compiled", 5.0, 60.0))
    )
    loaded: Any = {"eager": None, "compiled": None}
    images: Any = SimpleNamespace(modalities=())
    assert calibrate_module._choose(candidates, loaded, (), images, images, run_images)[0] == choice


@pytest.fixture
def copies(pack: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of back-ends in the order in which they were loaded: each computes as torch does, and needs nothing."""
    names: list[str] = []

    def load(model: Model, kind: BackendKind, graph: bytes | None) -> Model:
        names.append(kind.name)
        return model if kind.name == "eager" else model.with_image_tower(model.image_tower)

    for name in ("bf16", "compiled", "tome"):
        plain = replace(BACKENDS[name], flags=(), compiles=False)
        monkeypatch.setitem(BACKENDS, name, plain)  # type: ignore[arg-type]
    monkeypatch.setattr(calibrate_module, "load_backend", load)
    return names


def _calibrate(pack: Path, films: Path, *names: str, **limits: Any) -> Calibration:
    images = [NamedImage(path, Modality.XRAY) for path in sorted(films.iterdir())]
    kinds = [BACKENDS[name] for name in names]
    return calibrate_backends(
        load_model(pack), images, ScoreOptions(), kinds, Settings(workers=1), Recorded(), **limits
    )[0]


def test_a_back_end_that_is_no_faster_on_the_first_images_is_measured_no_further(
    pack: Path, films: Path, copies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _cost_images(monkeypatch, {"eager": 0.010, "bf16": 0.011, "tome": 0.005})
    compared: list[int] = []
    change = calibrate_module._change
    monkeypatch.setattr(calibrate_module, "_change", lambda *a: compared.append(len(a[-1].units)) or change(*a))
    measured = _calibrate(pack, films, "bf16", "tome")
    assert measured.choice == "tome"
    slow = measured.candidates[1]
    assert slow.refused.startswith("11.0 ms an image with its start, and torch 10.0")
    assert slow.held_out is None
    assert compared == [8, 8], "the choice alone computed all that choose and all that judge"
    assert (measured.num_held_out, measured.chosen.num_images) == (8, 8)


def test_a_calibration_says_from_how_many_files_on_it_pays(
    pack: Path, films: Path, copies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 s for 5 ms an image come back after 4,000 images, 1 s of a later run after 200."""
    _cost_images(monkeypatch, {"eager": 0.010, "tome": 0.005})
    measured = replace(_calibrate(pack, films, "tome"), seconds=19.0)
    started = tuple(replace(c, start_s=1.0 if c.name == "tome" else 0.0) for c in measured.candidates)
    pays = replace(measured, candidates=started)
    assert pays.choice == "tome"
    assert (pays.pays_from, pays.run_pays_from) == (4000, 200)
    assert "from 4,000 files on: the calibration took 19 s" in repr(pays)
    never = replace(pays, choice="eager")
    assert (never.pays_from, never.run_pays_from, never.saved_ms) == (None, None, 0.0)
    assert never.when_it_pays().startswith("never: the calibration took 19 s")


def test_a_back_end_that_is_not_expected_to_be_ready_in_time_is_left_out_unless_it_is_named(
    pack: Path, films: Path, copies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _cost_images(monkeypatch, {"eager": 0.010, "tome": 0.005, "compiled": 0.004})
    monkeypatch.setattr(calibrate_module, "processor_s", lambda: 100.0)
    measured = _calibrate(pack, films, "tome", "compiled", ends_s=130.0, began_s=90.0)
    assert (measured.choice, measured.seconds) == ("tome", 10.0)
    assert "--max-seconds leaves it no time" in measured.left_out["compiled"]
    assert copies == ["eager", "tome"]
    assert _calibrate(pack, films, "tome", "compiled", ends_s=145.0).choice == "compiled"
    assert _calibrate(pack, films, "tome", "compiled").choice == "compiled"


def test_what_cannot_be_is_refused_before_the_pack_is_loaded(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the pack was loaded")

    monkeypatch.setattr("medclip.models.packs.pack.load_model", load)
    absent = replace(BACKENDS["onnx"], libraries={"no_such_module": "none"})
    monkeypatch.setitem(BACKENDS, "onnx", absent)  # type: ignore[arg-type]
    with pytest.raises(MedclipError, match="no_such_module cannot be imported") as caught:
        medclip.models.calibrate(pack, images=films, modality="xray", candidate="onnx", out=tmp_path / "c")
    assert caught.value.reason is Reason.MISSING_CODEC
    with pytest.raises(MedclipError, match="15 images could be read; a calibration needs 16"):
        medclip.models.calibrate(pack, images=films, modality="xray", num_images=15, out=tmp_path / "c")


@pytest.mark.nightly
def test_a_compiled_tower_is_measured_with_its_start_and_named_in_the_command(
    pack: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if lacking := BACKENDS["compiled"].lacking():
        pytest.skip(lacking)
    command = [
        "models",
        "calibrate",
        str(pack),
        "--images",
        str(films),
        "--modality",
        "xray",
        "--candidate",
        "compiled",
    ]
    assert main([*command, "--num-run-images", "20", "--out", str(tmp_path / "c")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "each run compiles compiled for" in printed
    found = read_calibration(tmp_path / "c")
    (measured,) = [candidate for candidate in found.candidates if candidate.name == "compiled"]
    assert measured.start_s > 1
    assert measured.largest_change <= 1e-5
    assert (found.choice, found.run_images) == ("eager", 20), "twenty small images pay for no compiler"
    assert not list(Path(tempfile.gettempdir()).glob("medclip-compile-*"))


def test_too_few_images_that_can_be_read_are_refused_with_the_reasons(pack: Path, films: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="8 images could be read; a calibration needs 16") as caught:
        medclip.models.calibrate(pack, images=films, modality="xray", num_images=8, out=tmp_path / "c")
    assert caught.value.reason is Reason.NOTHING_TO_DO
    with pytest.raises(MedclipError, match="modality unknown 16"):
        medclip.models.calibrate(pack, images=films, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_pack_without_a_task_needs_a_question_to_compare_answers_of(films: Path, tmp_path: Path) -> None:
    silent = make_pack(tmp_path / "silent", tasks={})
    with pytest.raises(MedclipError, match="lists no task"):
        medclip.models.calibrate(silent, images=films, modality="xray", out=tmp_path / "c")
    asked = medclip.models.calibrate(
        silent, images=films, modality="xray", out=tmp_path / "c", prompt="pneumonia", candidate="eager"
    )
    assert asked.choice == "eager"


def test_images_of_a_table_are_read_beside_it_as_the_modality_that_it_names(
    pack: Path, films: Path, tmp_path: Path
) -> None:
    table = films.parent / "films.csv"
    table.write_text("file,modality\n" + "".join(f"{films.name}/{n:02d}.png,xray\n" for n in range(16)))
    calibration = medclip.models.calibrate(pack, images=table, out=tmp_path / "c", candidate="eager")
    assert calibration.num_images == 16


def test_evenly_spaced_images_are_taken_of_many() -> None:
    many = [NamedImage(Path(str(n))) for n in range(101)]
    assert [image.path.name for image in spread_out(many, 5)] == ["0", "25", "50", "75", "100"]
    assert spread_out(many[:3], 5) == many[:3]


def test_the_card_of_a_pack_says_which_bound_its_calibration_keeps_here(
    pack: Path,
    calibrated: Calibration,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path))
    assert main(["models", "show", str(pack)]) == 0
    assert "--backend auto" not in capsys.readouterr().out
    calibration_folder = _chosen(calibrated, "onnx", tmp_path / "made")
    place = calibration_home(Settings().home, calibrated.pack["digest"])
    place.parent.mkdir(parents=True)
    calibration_folder.rename(place)
    assert main(["models", "show", str(pack)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "With --backend auto here: Images were computed by ONNX Runtime, float32" in shown
    assert "(0.001 allowed)" in shown


def _chosen(calibrated: Calibration, choice: str, folder: Path) -> Path:
    """Copy a calibration as if a back-end had been the fastest, which a busy machine may decide otherwise."""
    assert calibrated.folder is not None
    candidates = tuple(replace(c, held_out=calibrated.judged, refused="") for c in calibrated.candidates)
    calibrated = replace(calibrated, candidates=candidates)
    graph = calibrated.folder / calibration_module.GRAPH_NAME
    content = graph.read_bytes() if graph.is_file() else None
    own = replace(calibrated, choice=choice, versions=BACKENDS[choice].versions())
    calibration_module.write_calibration(folder / choice, own, content)
    return folder / choice


@pytest.mark.slow  # on every push, whatever it takes: figures of another machine are never used
def test_a_calibration_of_another_pack_processor_or_library_is_refused(
    pack: Path, calibrated: Calibration, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _chosen(calibrated, "onnx", tmp_path)
    other = make_pack(tmp_path / "other")
    update_pack(other, card=pack_card(other).model_copy(update={"version": "2"}))
    cases = {
        "was made of another pack, tiny 1": (other, lambda: None),
        "another processor, which lacks avx2": (
            pack,
            lambda: monkeypatch.setattr(calibration_module, "cpu_flags", lambda: set(calibrated.flags) - {"avx2"}),
        ),
    }
    if "avx2" not in calibrated.flags:
        del cases["another processor, which lacks avx2"]
    for message, (model, change) in cases.items():
        with monkeypatch.context():
            change()
            with pytest.raises(MedclipError, match=message) as caught:
                medclip.score(films, model=model, modality="xray", backend=place)
            monkeypatch.undo()
        assert caught.value.reason is Reason.WRONG_USE
        assert "models calibrate" in caught.value.hint
    calibration_module.write_calibration(
        tmp_path / "old", replace(calibrated, choice="onnx", versions={"onnxruntime": "1.0"}, graph=""), None
    )
    with pytest.raises(MedclipError, match=r"was measured with onnxruntime 1\.0"):
        medclip.score(films, model=pack, modality="xray", backend=tmp_path / "old")


@pytest.mark.parametrize("more", [True, False])
def test_a_processor_with_more_instructions_is_another_one_but_for_torch_in_float32(
    more: bool, pack: Path, calibrated: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries take the kernels of the newest instructions there are; the bound was measured with others."""
    newer = {"amx_tile", "amx_int8"}  # which the processor of this machine may have
    before = tuple(flag for flag in calibrated.flags if flag not in newer)
    flags = frozenset(before) | newer
    measured_on = before if more else (*before, "sve")
    monkeypatch.setattr(calibration_module, "cpu_flags", lambda: flags - {"sve"})
    digest = calibrated.pack["digest"]
    named = read_calibration(_chosen(replace(calibrated, flags=measured_on), "onnx", tmp_path))
    words = "which has amx_int8 and amx_tile besides" if more else "which lacks sve and which has amx_int8 and amx_tile"
    with pytest.raises(MedclipError, match=f"another processor, {words}"):
        check_calibration(named, digest)
    check_calibration(read_calibration(_chosen(replace(calibrated, flags=measured_on), "eager", tmp_path)), digest)
    monkeypatch.setattr(calibration_module, "cpu_flags", lambda: frozenset(measured_on))
    check_calibration(named, digest)


def test_a_damaged_calibration_is_refused(calibrated: Calibration, pack: Path, films: Path, tmp_path: Path) -> None:
    place = _chosen(calibrated, "onnx", tmp_path)
    values = json.loads((place / "calibration.json").read_text())
    values["graph"] = "0" * 64
    (place / "calibration.json").write_text(json.dumps(values))
    with pytest.raises(MedclipError, match="not the one that was calibrated") as caught:
        medclip.score(films, model=pack, modality="xray", workers=1, backend=place)
    assert caught.value.reason is Reason.CORRUPT
    for text in ("", "[]", "{}", '{"format": 9}', json.dumps(values | {"choice": "none"})):
        (place / "calibration.json").write_text(text)
        with pytest.raises(MedclipError, match="not a calibration"):
            read_calibration(place)
    with pytest.raises(MedclipError, match="no calibration here"):
        read_calibration(tmp_path)


def test_the_command_shows_each_back_end_and_what_to_do_next(
    pack: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "calibrate", str(pack), "--images", str(films), "--modality", "xray", "--candidate", "eager"]
    assert main([*command, "--out", str(tmp_path / "c")]) == 0
    shown = capsys.readouterr().out
    assert "eager" in shown
    assert f"--backend {tmp_path / 'c'}" in shown
    assert "Pays never: the calibration took" in shown
    assert main([*command, "--out", str(tmp_path / "d"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["choice"], values["pays_from"]) == ("eager", None)
    assert values["seconds"] > 0
    assert main([*command, "--out", str(films)]) == 2
