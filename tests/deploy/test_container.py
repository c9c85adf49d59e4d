"""The Containerfile, line by line and done in a plain folder; the module of mercure, on folders as mercure makes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import pytest

import medclip
from tests.kits.scoring import PLANTED, STUDY_UID, make_pack, write_dicom

pytest.importorskip("highdicom")
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "container"
MODULE = FOLDER / "mercure_module.py"
COMMAND = ("-m", "medclip.cli.main")
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage of the Containerfile."""
    text = re.sub(r"\\\n", " ", (FOLDER / "Containerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    named: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        instruction, _, rest = line.partition(" ")
        assert instruction in INSTRUCTIONS, line
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            assert name not in named, line
            assert base in named or re.search(r":[\w.-]*\d", base), f"{base} is no stage and has no version"
            named[name] = list(named.get(base, []))
        else:
            named[list(named)[-1]].append((instruction, rest))
    return named


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def handed(tmp_path: Path) -> tuple[Path, Path]:
    """Folders as mercure makes them: images as SERIES#FILE.dcm with their tags."""
    incoming, outgoing = tmp_path / "in", tmp_path / "out"
    outgoing.mkdir()
    for number in (1, 2):
        image = write_dicom(incoming / f"{STUDY_UID}.1#{STUDY_UID}.9.{number}.dcm", number)
        image.with_suffix(".tags").write_text(json.dumps({"PatientID": PLANTED["PatientID"]}))
    return incoming, outgoing


def order(incoming: Path, pack: Path, **settings: Any) -> None:
    settings = {"model": str(pack), "prompt": "a fracture", "workers": 1, **settings}
    (incoming / "task.json").write_text(json.dumps({"id": "1", "process": {"settings": settings}}))


def loaded() -> Any:
    spec = util.spec_from_file_location("mercure_module", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def process(handed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, **environment: Path) -> int:
    for name, value in {"MERCURE_IN_DIR": handed[0], "MERCURE_OUT_DIR": handed[1], **environment}.items():
        monkeypatch.setenv(name, str(value))
    return loaded().main()


def test_every_instruction_is_known_every_base_has_a_version_and_every_source_exists() -> None:
    named = stages()
    assert {"build", "command", "mercure"} <= set(named)
    for instructions in named.values():
        for instruction, rest in instructions:
            if instruction == "COPY" and not rest.startswith("--from="):
                *sources, _ = shlex.split(rest)
                assert all((FOLDER.parents[1] / source).exists() for source in sources), rest
            if instruction == "COPY" and rest.startswith("--from="):
                assert rest.split()[0].removeprefix("--from=") in named
            if instruction == "RUN":
                assert subprocess.run(["bash", "-n", "-c", rest], check=False).returncode == 0
            if instruction in ("ENTRYPOINT", "CMD"):
                assert json.loads(rest)


def test_what_runs_is_not_root_and_fetches_nothing() -> None:
    for name in ("command", "mercure"):
        users = [rest for instruction, rest in stages()[name] if instruction == "USER"]
        assert users
        assert users[-1] != "root"
        environment = environment_of(name)
        assert (environment["HF_HUB_OFFLINE"], environment["HOME"]) == ("1", "/tmp")
        assert environment["USER"]  # getpass.getuser(), which torch asks, has no other way to a name
        (_, entry) = [step for step in stages()[name] if step[0] == "ENTRYPOINT"][-1]
        assert json.loads(entry)[0] in ("medclip", "python")  # process 1 is the command itself, and gets SIGTERM


def environment_of(stage: str) -> dict[str, str]:
    """Return what a stage says of its environment."""
    lines = [rest for instruction, rest in stages()[stage] if instruction == "ENV"]
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


def somebody() -> list[str]:
    """Return what starts a command as a user who has no name, no home and no rights; skip where that cannot be."""
    words = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if shutil.which("unshare") and not subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        return words
    pytest.skip("unshare makes no namespace of users here: it is missing, or not allowed to")


def run_as_somebody(
    tmp_path: Path, program: Sequence[str], *arguments: object, **environment: object
) -> subprocess.CompletedProcess[str]:
    """Run a program of Python as `podman run --user 12345:12345` does, in the environment of the image."""
    places = {"/tmp": tmp_path / "tmp", "/var/lib/medclip": tmp_path / "home"}
    stated = {name: str(places.get(value, value)) for name, value in environment_of("command").items()}
    stated |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(FOLDER.parents[1]), "TMPDIR": str(tmp_path / "tmp")}
    stated |= {name: str(value) for name, value in environment.items()}
    command = [*somebody(), sys.executable, *program, *map(str, arguments)]
    for place in places.values():
        place.mkdir(exist_ok=True)
    return subprocess.run(command, env=stated, cwd="/", capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_scores_and_writes_nothing_beside_output_key_and_caches(
    handed: tuple[Path, Path], pack: Path, tmp_path: Path
) -> None:
    out = tmp_path / "night"
    done = run_as_somebody(tmp_path, COMMAND, "score", handed[0], "--out", out, "--model", pack, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "matplotlib" not in done.stderr
    assert (tmp_path / "home" / "medclip" / "identity.key").exists()
    assert (out / "report.html").exists()
    order(handed[0], pack)  # mercure starts its modules as the user that it runs as itself
    folders = {"MERCURE_IN_DIR": handed[0], "MERCURE_OUT_DIR": handed[1]}
    done = run_as_somebody(tmp_path, [str(MODULE)], **folders)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reports"] == len(list(handed[1].glob("*.dcm"))) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives folders to another user")
def test_a_folder_of_another_user_is_refused_with_the_user_to_run_as(handed: tuple[Path, Path], tmp_path: Path) -> None:
    os.chown(handed[1], 1000, 1000)
    handed[1].chmod(0o755)
    done = run_as_somebody(tmp_path, COMMAND, "score", handed[0], "--out", handed[1] / "night")
    assert done.returncode == 2
    assert "and this is user 12345: run as the owner (a container: --user " in done.stderr
    handed[1].chmod(0o700)
    done = run_as_somebody(tmp_path, COMMAND, "score", handed[0], "--out", tmp_path / "out", MEDCLIP_HOME=handed[1])
    assert done.returncode == 2
    assert "this home of settings may not be read" in done.stderr


def test_mercure_gets_a_report_named_by_its_series_and_a_result_without_identifiers(
    handed: tuple[Path, Path], pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pydicom

    order(handed[0], pack)
    assert process(handed, monkeypatch) == 0
    assert len(list(handed[1].iterdir())) == 2
    (report,) = handed[1].glob("*.dcm")
    header = pydicom.dcmread(report)
    assert report.name == f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm"
    assert (header.Modality, header.StudyInstanceUID) == ("SR", STUDY_UID)
    result = json.loads((handed[1] / "result.json").read_text())
    assert result["counts"]["files"] == result["counts"]["scored"] == 2
    assert result["reports"] == 1
    printed = capsys.readouterr()
    for value in (*PLANTED.values(), STUDY_UID):
        assert value not in printed.out + printed.err + (handed[1] / "result.json").read_text()


def test_a_file_that_cannot_be_read_fails_the_task_unless_the_rule_says_never(
    handed: tuple[Path, Path], pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = handed[0] / f"{STUDY_UID}.1#broken.dcm"
    broken.write_bytes(next(handed[0].glob("*.dcm")).read_bytes()[:600])
    order(handed[0], pack)
    assert process(handed, monkeypatch) == 3
    order(handed[0], pack, fail="never")
    assert process(handed, monkeypatch) == 0
    assert json.loads((handed[1] / "result.json").read_text())["counts"]["failed"] == 1


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ('{"process": {"settings": {"modle": "x"}}}', "'modle'"),
        ('{"process": {"settings": ["x"]}}', "task.json"),
        ("{", "task.json"),
        ('{"process": {"settings": {"model": "no-such-pack"}}}', "no-such-pack"),
        ('{"process": {"settings": {"workers": "2"}}}', "workers is a number, not '2'"),
        ('{"process": {"settings": {"min_confidence": true}}}', "min_confidence is a number"),
    ],
)
def test_a_rule_with_a_slip_is_refused_and_nothing_is_written(
    handed: tuple[Path, Path],
    task: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (handed[0] / "task.json").write_text(task)
    assert process(handed, monkeypatch) == 2
    assert sentence in capsys.readouterr().err
    assert not list(handed[1].iterdir())


def test_with_a_folder_that_stays_a_study_that_comes_again_has_the_same_report(
    handed: tuple[Path, Path], pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764288000")
    order(handed[0], pack)
    (tmp_path / "stays").mkdir()
    for _ in range(2):
        assert process(handed, monkeypatch, MODULE_PERSISTENCE_DIR=tmp_path / "stays") == 0
    assert len(list(handed[1].glob("*.dcm"))) == 1


def test_a_fault_of_its_own_is_one_line_without_what_an_error_quotes(
    handed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError(PLANTED["PatientID"])

    monkeypatch.delenv("MEDCLIP_DEBUG", raising=False)
    monkeypatch.setattr(medclip, "score", fail)
    assert process(handed, monkeypatch) == 1
    printed = capsys.readouterr()
    assert "KeyError" in printed.err
    assert PLANTED["PatientID"] not in printed.err + printed.out


def test_outside_mercure_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MERCURE_IN_DIR", raising=False)
    assert loaded().main() == 2
    assert "MERCURE_IN_DIR" in capsys.readouterr().err


@pytest.mark.slow
def test_the_steps_of_the_containerfile_work_in_a_plain_folder(
    handed: tuple[Path, Path], pack: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hatchling", reason="hatchling is missing. Run: pip install hatchling")
    repository = FOLDER.parents[1]
    source, installed = tmp_path / "src", tmp_path / "opt"
    for instruction, rest in stages()["build"]:  # the layers of the build stage
        if instruction == "COPY":
            for name in shlex.split(rest)[:-1]:
                target = source / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if (repository / name).is_dir():
                    shutil.copytree(repository / name, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(repository / name, target)
    # What it needs comes from here: only the package itself is built and installed as `pip install .` does.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--compile", "--target", str(installed), str(source)], check=True)
    shutil.copy(MODULE, installed / MODULE.name)
    order(handed[0], pack)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "HOME": "/nowhere"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    folders = {"MERCURE_IN_DIR": str(handed[0]), "MERCURE_OUT_DIR": str(handed[1])}
    run = subprocess.run(
        [sys.executable, str(installed / MODULE.name)],
        env=environment | folders,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["reports"] == 1
    assert len(list(handed[1].glob("*#*.dcm"))) == 1
    shown = subprocess.run(
        [sys.executable, "-c", "import medclip; print(medclip.__file__)"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(shown.stdout.strip()).is_relative_to(installed)
    # Who runs it may not write there: what is not compiled when it is installed is compiled at each start.
    sources = [path for path in (installed / "medclip").rglob("*.py") if path.stat().st_size]
    assert len(sources) > 400
    assert [path for path in sources if not list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc"))] == []
