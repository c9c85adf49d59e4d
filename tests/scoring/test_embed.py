"""Embedding a folder: one row per file, the model's own vectors, equal bytes however often it is stopped."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.api.search import search
from medclip.cli.main import main
from medclip.embeddings.open_embeddings import is_embeddings, open_embeddings
from medclip.embeddings.write_embeddings import NOTE, TABLES
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.read_pixels import read_pixels
from medclip.models.packs.card import read_card
from medclip.models.packs.image_tower import image_tower_digest
from medclip.models.packs.manifest import read_manifest, seal
from medclip.models.packs.pack import load_model, update_pack
from medclip.runs.operations.run_status import read_status
from medclip.runs.planning import plan as plan_module
from medclip.runs.units.unit_rows import public_body_part
from medclip.sample import Kind, Modality
from medclip.settings import Settings
from tests.kits.files import write_image
from tests.kits.loaded_python import Programs
from tests.kits.scoring import PLANTED, STUDY_UID, make_pack, rows, small_folder, texture, write_dicom, write_png
from tests.kits.stops import Budget, Stopped
from tests.kits.volumes import write_nifti


def digests(folder: Path) -> dict[str, str]:
    """Hash what a run of embed has written."""
    names = ("files.parquet", "run.json", NOTE, *TABLES)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def stored(pack: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of a bit of everything. Read only."""
    return embed(studies, tmp_path_factory.mktemp("stored") / "e", model=pack, workers=1, min_confidence=0.0).folder


def test_every_file_has_one_row_and_what_an_adapter_reads_has_vectors(pack: Path, studies: Path, stored: Path) -> None:
    embeddings = open_embeddings(stored)
    assert embeddings.counts == {"files": 11, "embedded": 8, "skipped": 1, "failed": 2, "studies": 7}
    assert embeddings.exit_code == 3
    of_file = {row["path"]: row for row in embeddings.files.to_pylist()}
    assert sorted(of_file) == sorted(p.relative_to(studies).as_posix() for p in studies.rglob("*") if p.is_file())
    assert of_file["a/1.dcm"]["status"] == "embedded"
    model, row = load_model(pack), of_file["b/scan"]["row"]
    pixels = read_pixels(studies / "b" / "scan", Modality.MAMMOGRAPHY, model.preprocess, Settings())
    assert pixels.images is not None
    place = embeddings.views.column("row").to_pylist().index(row)
    assert np.array_equal(embeddings.vectors("views")[place], model.encode_image(pixels.images)[0])
    assert read_status(stored).state == "finished"


def test_a_run_that_embeds_has_files_embedded_not_scored(stored: Path) -> None:
    status = read_status(stored)
    assert status.counts == open_embeddings(stored).counts
    assert status.ended.startswith(f"{status.counts['embedded']} embedded, ")
    assert "scored" not in status.to_dict()


def test_number_of_workers_and_size_of_a_chunk_change_no_byte(
    pack: Path, studies: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "CHUNK_FILES", 2)
    again = embed(studies, tmp_path / "e", model=pack, workers=2, min_confidence=0.0)
    assert digests(again.folder) == digests(stored)
    assert embed(studies, tmp_path / "e", model=pack, workers=1, min_confidence=0.0).already_finished


def test_a_run_stopped_at_any_commit_goes_on_and_ends_in_the_same_bytes(
    pack: Path, studies: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "CHUNK_FILES", 2)
    out, stops = tmp_path / "e", 0
    budget = Budget(monkeypatch)
    while True:
        budget.num_left = 9 + stops % 3
        try:
            embed(studies, out, model=pack, workers=1, min_confidence=0.0)
            break
        except Stopped:
            stops += 1
            assert stops < 30
            assert is_embeddings(out)
            with pytest.raises(MedclipError, match="not complete"):
                score(out, model=pack)
    assert stops >= 2
    assert digests(out) == digests(stored)


def test_a_run_killed_before_its_model_is_loaded_leaves_embeddings_that_are_not_complete(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medclip.runs.conduct.load_run_model", killed)
        with pytest.raises(KeyboardInterrupt):
            embed(studies, tmp_path / "e", model=pack, workers=1)
    with pytest.raises(MedclipError, match="not complete"):  # and not: scored as if it were a folder of images
        score(tmp_path / "e", tmp_path / "s", model=pack)
    assert embed(studies, tmp_path / "e", model=pack, workers=1).num_units


def test_files_that_came_are_added_and_results_are_those_of_all(pack: Path, tmp_path: Path) -> None:
    root = small_folder(tmp_path / "in")
    embed(root, tmp_path / "e", model=pack, workers=1)
    write_dicom(root / "a" / "3.dcm", 70)
    with pytest.raises(MedclipError, match="--add"):
        embed(root, tmp_path / "e", model=pack, workers=1)
    grown = embed(root, tmp_path / "e", model=pack, workers=1, add=True)
    fresh = embed(root, tmp_path / "fresh", model=pack, workers=1)
    assert grown.units.equals(fresh.units)
    assert np.array_equal(grown.vectors("studies"), fresh.vectors("studies"))
    assert score(grown, model=pack).scores.equals(score(root, model=pack, workers=1).scores)


def test_half_precision_is_near_and_no_thumbnails_are_none(pack: Path, studies: Path, stored: Path) -> None:
    half = embed(studies, model=pack, workers=1, min_confidence=0.0, dtype="float16", thumbnails=False)
    assert np.abs(half.vectors("views") - open_embeddings(stored).vectors("views")).max() < 1e-3
    assert not list(half.thumbnails())
    assert len(list(open_embeddings(stored).thumbnails())) == 8


def test_hashed_paths_stay_hashed_in_what_is_scored(pack: Path, studies: Path, tmp_path: Path) -> None:
    of_files = score(studies, tmp_path / "f", model=pack, workers=1, hash_paths=True)
    hashed = embed(studies, tmp_path / "e", model=pack, workers=1, hash_paths=True)
    plain = embed(studies, tmp_path / "p", model=pack, workers=1)
    for name, embeddings, is_new in (("h", hashed, False), ("q", plain, True)):
        run = score(embeddings, tmp_path / name, model=pack, hash_paths=is_new)
        assert run.files.equals(of_files.files)
        assert run.scores.equals(of_files.scores)
        assert (run.folder / "run.json").read_bytes() == (of_files.folder / "run.json").read_bytes()
    assert score(plain, model=pack, hash_paths=True).files.equals(of_files.files)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"modality": "ct"}, "--modality was decided when the files were embedded"),
        ({"min_confidence": 0.3}, "--min-confidence was decided"),
        ({"group_by": "file"}, "--group-by was decided"),
        ({"batch_size": 9}, "--batch-size was decided"),
        ({"add": True}, "no file is looked at"),
        ({"model": "medclip-mini"}, "of another pack: tiny 1"),
        ({"key_file": "other.key"}, "another identity key"),
    ],
)
def test_what_was_decided_when_files_were_embedded_cannot_be_another_thing(
    pack: Path, stored: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    if "key_file" in options:
        options = {"key_file": tmp_path / "other.key"}
        options["key_file"].write_bytes(bytes(32))
    for out in (None, tmp_path / "out"):
        with pytest.raises(MedclipError, match=sentence) as caught:
            score(stored, out, **{"model": pack, **options})
        assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "out").exists()


def test_a_pack_of_the_same_image_tower_answers_and_one_of_another_does_not(
    pack: Path, stored: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    from medclip.adapters.registry import get_adapter

    twin, other = (Path(shutil.copytree(pack, tmp_path / name)) for name in ("twin", "other"))
    update_pack(twin, card=read_card(twin).model_copy(update={"name": "twin", "tasks": {}}))
    ways = {
        **read_manifest(twin).preprocessing,
        "ultrasound": get_adapter(Modality.ULTRASOUND).preprocessing_of(Kind.IMAGE),
    }
    seal(twin, ways)  # as adapting to another modality adds its way of reading
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if name.startswith("visual.") and weights[name].ndim > 1)
    save_file({**weights, name: weights[name] * 2}, other / "model.safetensors")
    update_pack(other)
    assert image_tower_digest(twin) == image_tower_digest(pack) != image_tower_digest(other)
    assert score(stored, model=twin, prompt="a blob").scores.column("model").unique().to_pylist() == ["twin"]
    with pytest.raises(MedclipError, match="another pack"):
        score(stored, model=other, prompt="a blob")


def test_a_pack_that_knows_one_modality_takes_it_for_images_that_name_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medclip.adapters.registry import get_adapter

    ways = {"xray": get_adapter(Modality.XRAY).preprocessing_of(Kind.IMAGE)}
    card = {"tasks": {"chest_xray_findings": {"classes": ["pneumonia"]}}, "modalities": ["xray", "mri"]}
    chests = make_pack(tmp_path / "chests", ways, **card)
    write_png(tmp_path / "in" / "x.png", 1)
    write_dicom(tmp_path / "in" / "pet.dcm", 2, modality="PT")
    assert main(["score", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(chests)]) == 0
    printed = capsys.readouterr().out
    assert "1 file of no stated modality was taken for X-ray, the only one that the model knows." in printed
    assert "skipped: no task" in printed
    assert "--prompt TEXT or --task NAME" in printed
    of_file = rows(score(tmp_path / "in", tmp_path / "out", model=chests))
    assert (of_file["x.png"]["status"], of_file["x.png"]["modality_source"]) == ("scored", "pack")
    assert of_file["pet.dcm"]["status"] == "skipped", "it states a modality, though one without an adapter"
    named = rows(score(tmp_path / "in", model=chests, modality="mri"))["x.png"]
    assert (named["modality"], named["modality_source"]) == ("mri", "option")
    embeddings = embed(tmp_path / "in", model=chests)
    assert score(embeddings, model=chests).files.to_pylist() == list(of_file.values())


def test_images_whose_modality_nobody_knows_have_vectors_and_are_asked_nothing(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for n, suffix in enumerate(("png", "jpg", "tif", "bmp")):
        write_image(root / f"{n}.{suffix}", texture(n, 90, 120))
    write_image(root / "named.png", texture(7, 90, 120))
    write_dicom(root / "other.dcm", 8, study_uid=f"{STUDY_UID}.8", modality="OT")
    write_dicom(root / "film.dcm", 9, study_uid=f"{STUDY_UID}.9")
    write_nifti(root / "volume.nii.gz", np.zeros((8, 8, 4), np.int16), np.eye(4))
    (tmp_path / "t.csv").write_text("file,modality\nnamed.png,xray\n")

    stored = embed(root, tmp_path / "e", model=pack, modality="unknown", table=tmp_path / "t.csv", workers=1)

    of_file = {row["path"]: row for row in stored.files.to_pylist()}
    unknown = {"0.png", "1.jpg", "2.tif", "3.bmp", "other.dcm"}
    assert {path for path, row in of_file.items() if row["modality"] == "unknown"} == unknown
    assert {(of_file[path]["status"], of_file[path]["adapter"]) for path in unknown} == {("embedded", "generic")}
    assert (of_file["named.png"]["modality"], of_file["film.dcm"]["modality"]) == ("xray", "xray")
    assert of_file["volume.nii.gz"]["reason"] == "modality_unknown"
    assert sorted(stored.units.column("modality").to_pylist()) == ["unknown"] * 5 + ["xray"] * 2
    model = load_model(pack)
    pixels = read_pixels(root / "0.png", "generic", model.preprocess, Settings())
    assert pixels.images is not None
    place = stored.views.column("row").to_pylist().index(of_file["0.png"]["row"])
    assert np.array_equal(stored.vectors("views")[place], model.encode_image(pixels.images)[0])

    hits = search(stored, "a chest", model=model, where={"modality": "unknown"}).hits
    assert {hit.modality for hit in hits} == {"unknown"}
    assert len(hits) == 5
    answers = score(stored, model=model, prompt="a mass")
    assert set(answers.scores.column("modality").to_pylist()) == {"xray"}
    reasons = {row["path"]: row["reason"] for row in answers.files.to_pylist()}
    assert {path for path, reason in reasons.items() if reason == "modality_unknown"} == unknown | {"volume.nii.gz"}
    with pytest.raises(MedclipError, match="nothing but vectors is computed"):
        score(root, tmp_path / "s", model=pack, modality="unknown")


def test_another_batch_size_is_another_run(pack: Path, studies: Path, tmp_path: Path) -> None:
    run = score(studies / "a", tmp_path / "out", model=pack, workers=1, batch_size=2)
    assert json.loads((run.folder / "run.json").read_text())["options"]["batch_size"] == 2
    with pytest.raises(MedclipError, match="--batch-size differs"):
        score(studies / "a", tmp_path / "out", model=pack, workers=1)
    assert score(studies / "a", tmp_path / "o4", model=pack, workers=1, batch_size=4).counts["scored"] == 2
    assert score(studies / "a", tmp_path / "o4", model=pack, workers=1).already_finished, "4 is the number anyway"


def test_devices_and_batches_that_cannot_be_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    code = (
        "import sys; from medclip.cli.main import main\n"
        "codes = [int(main([verb, sys.argv[1], '--out', sys.argv[1] + '/o', *more])) for verb in ('embed', 'score')\n"
        "         for more in (['--device', 'gpu'], ['--batch-size', '0'])]\n"
        "print(codes, [name for name in ('torch', 'open_clip') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[2, 2, 2, 2] []"
    assert "torch cannot compute on the device 'gpu' here." in done.stderr


def test_nothing_personal_but_hashes_and_file_names_is_in_any_output(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1, BodyPartExamined="CHEST ROENTGEN")
    embeddings = embed(tmp_path / "in", tmp_path / "e", model=pack, workers=1)
    texts = [path.read_bytes().decode("utf-8", "replace") for path in embeddings.folder.iterdir()]
    texts += [str(table.to_pylist()) for table in (embeddings.files, embeddings.units, embeddings.studies)]
    for secret in [*PLANTED.values(), "ROENTGEN", STUDY_UID]:
        assert not any(secret in text for text in texts)
    assert {path.stat().st_mode & 0o777 for path in embeddings.folder.iterdir()} == {0o600}
    assert embeddings.units.column("body_part").to_pylist() == ["* CHEST"]
    assert public_body_part("unknown") == "UNKNOWN"


@pytest.mark.slow
def test_kills_in_the_middle_change_no_byte(
    programs: Programs, pack: Path, studies: Path, stored: Path, tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from medclip.runs.planning import plan\n"
        "from medclip.runs.ledger import ledger\n"
        "from medclip.api.embed import embed\n"
        "plan.CHUNK_FILES = 2\n"
        "commit, left = ledger.Ledger.commit, int(sys.argv[4])\n"
        "def dying(self, result):\n"
        "    global left\n"
        "    left -= 1\n"
        "    grown = commit(self, result)\n"
        "    if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return grown\n"
        "ledger.Ledger.commit = dying\n"
        "embed(sys.argv[1], sys.argv[2], model=sys.argv[3], workers=2, min_confidence=0.0)\n"
    )
    command = [programs.python, "-c", code, studies, tmp_path / "e", pack]
    codes = [subprocess.run([*command, left], check=False).returncode for left in ("2", "1", "0")]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert digests(tmp_path / "e") == digests(stored)
