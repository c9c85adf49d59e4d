"""The checks of an installation, and the fix that each failure names."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from medclip.dicom.codecs import transfer_syntax as dicom_syntaxes
from medclip.files.readers import memory
from medclip.files.settings_file import VARIABLE
from medclip.inspecting import doctor as room
from medclip.inspecting.doctor import KINDS, Check, Diagnosis, State, broken_modules, diagnose, readable_kinds
from medclip.settings import Settings


def ended(stdout: str = "", stderr: str = "", code: int = 0):
    """Stand in for the probe process."""
    return lambda *a, **k: subprocess.CompletedProcess(a, code, stdout, stderr)


@pytest.fixture
def without_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "_model", lambda: [])


def test_this_installation_passes_and_reads_every_transfer_syntax(tmp_path: Path):
    diagnosis = diagnose(Settings(home=tmp_path))
    failed = [check for check in diagnosis.checks if check.state is State.FAIL]
    assert not failed
    states = {check.name: check.state for check in diagnosis.checks}
    read = dicom_syntaxes.READ.values()
    assert [states[f"DICOM {title}"] for title in read] == [State.PASS] * len(read)
    assert [states[kind.name] for kind in KINDS] == [State.PASS] * len(KINDS)
    assert states["built-in pack"] is State.PASS
    assert states["network"] is State.PASS


def test_the_unrelated_medclip_distribution_is_found_and_its_removal_named(
    without_model, monkeypatch: pytest.MonkeyPatch
):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.3" if name == "medclip" else real(name))
    clash = next(c for c in diagnose().checks if c.name == "import name")
    assert clash.state is State.FAIL
    assert "medclip 0.0.3" in clash.finding
    assert clash.fix.startswith("pip uninstall medclip;")


def test_another_folder_named_medclip_on_the_path_is_found(
    without_model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "medclip").mkdir()
    (tmp_path / "medclip" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    clash = next(c for c in diagnose().checks if c.name == "import name")
    assert clash.state is State.FAIL
    assert str(tmp_path) in clash.finding


def test_a_file_of_ours_that_another_package_replaced_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    recorded = tmp_path / "medclip" / "__init__.py"
    recorded.parent.mkdir()
    recorded.write_text("# theirs")
    info = tmp_path / "medclip_imaging-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: medclip-imaging\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("medclip/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n")
    monkeypatch.setattr(metadata, "files", lambda name: metadata.PathDistribution(info).files)
    assert room._changed_files() == ["medclip/__init__.py"]
    recorded.write_text("")
    assert room._changed_files() == []


def test_a_missing_package_fails_with_its_pip_line(without_model, monkeypatch: pytest.MonkeyPatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "pydicom":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "numpy" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    checks = {c.name: c for c in diagnose().checks}
    assert checks["package pydicom"].state is State.FAIL
    assert checks["package pydicom"].fix.startswith("pip install 'pydicom")
    assert checks["package numpy"].finding == "1.0, but <3,>=2.0 is needed"


def test_a_syntax_without_decoder_is_a_warning_with_the_pip_line(without_model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("medclip.dicom.codecs.decoders.in_order", lambda uid: ())
    checks = {c.name: c for c in diagnose().checks}
    assert checks["DICOM JPEG-LS Lossless"].state is State.WARN
    assert checks["DICOM JPEG-LS Lossless"].fix == "pip install 'medclip-imaging[dicom]'"


def test_every_transfer_syntax_with_pixels_is_listed_also_those_that_are_never_read():
    from pydicom._uid_dict import UID_dictionary

    without_pixels = (".6.1", ".6.2", ".7.1", ".7.2", ".7.3")
    standard = {
        uid
        for uid, entry in UID_dictionary.items()
        if entry[1] == "Transfer Syntax" and not uid.endswith(without_pixels)
    }
    assert standard <= dicom_syntaxes.SYNTAXES
    checks = room._syntaxes()
    listed = [title for check in checks for title in check.details or [check.name.removeprefix("DICOM ")]]
    known = (dicom_syntaxes.READ, dicom_syntaxes.JPEG_XL, dicom_syntaxes.VIDEO, dicom_syntaxes.OTHER)
    assert listed == [title for table in known for title in table.values()]
    slides_only, unread = [check for check in checks if check.details]
    assert (slides_only.state, unread.state) == (State.INFO, State.INFO), "neither passed nor at fault"
    assert f"{len(unread.details)} transfer syntaxes are not read" in unread.finding


def test_packages_that_fit_are_one_line_and_all_of_them_in_json(without_model):
    (packages,) = [check for check in room._packages() if check.state is State.PASS]
    assert packages.finding.startswith(f"{len(packages.details)} ")
    assert any(line.startswith("pydicom ") for line in packages.details)
    assert "pydicom " in Diagnosis((packages,)).to_json()


def _process(broken: dict[str, str]):
    """Stand in for the process that loads modules."""
    return lambda command, **_: subprocess.CompletedProcess(
        command, 0, "\n".join(json.dumps([name, broken.get(name, "")]) for name in command[3:])
    )


@pytest.mark.parametrize(
    ("module", "kinds", "line"),
    [
        ("openslide", ["slides: SVS"], "pip install 'medclip-imaging[wsi]'"),
        ("wfdb", ["ECG: WFDB", "ECG: WFDB packed"], "pip install 'medclip-imaging[ecg]'"),
        ("soundfile", ["ECG: WFDB packed"], "pip install 'medclip-imaging[ecg]' soundfile"),
        ("h5py", ["volumes: MINC"], "pip install 'medclip-imaging[minc]'"),
        ("av", ["video"], "pip install 'medclip-imaging[video]'"),
    ],
)
def test_a_missing_package_is_said_by_the_files_it_reads(
    monkeypatch: pytest.MonkeyPatch, module: str, kinds: list[str], line: str
):
    run = _process({module: "is not installed"})
    monkeypatch.setattr(room, "readable_kinds", lambda: readable_kinds(run))
    warned = [check for check in room._file_kinds() if check.state is State.WARN]
    assert len(warned) == len(kinds)
    for check, name in zip(warned, kinds, strict=True):
        assert check.name.startswith(name)
        assert f"{module} is not installed" in check.finding
        assert check.fix.startswith(line)


def test_a_module_that_takes_its_process_down_is_named_and_the_others_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "crashes.py").write_text("import os\nos._exit(139)\n")
    (tmp_path / "fails.py").write_text("raise OSError('libx.so')\n")
    (tmp_path / "needs.py").write_text("import no_such_module_here\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert broken_modules(["crashes", "json", "fails", "needs", "no_such_module_there"]) == {
        "crashes": "takes the process down when it loads",
        "fails": "does not load (OSError)",
        "needs": "does not load: no_such_module_here is not installed",
        "no_such_module_there": "is not installed",
    }


@pytest.mark.parametrize(
    ("wanted", "state", "words"),
    [
        (None, State.PASS, "12.0 GB, one file up to 8.0 GB"),
        (4, State.PASS, "4.0 GB, one file up to 4.0 GB"),
        (30, State.WARN, "more than there is"),
    ],
)
def test_the_memory_says_what_reading_may_take(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None, state: State, words: str
):
    for module in (room, memory):
        monkeypatch.setattr(module, "machine_memory_bytes", lambda: 20 * 10**9)
    total = None if wanted is None else wanted * 10**9
    check = room._memory(Settings(memory_bytes=total, reader_memory_bytes=8 * 10**9))
    assert check.state is state
    assert words in check.finding


def test_a_home_that_cannot_be_written_fails(without_model, tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.touch()
    checks = {c.name: c for c in diagnose(Settings(home=blocked)).checks}
    assert checks["identity key folder"].state is State.FAIL
    assert "MEDCLIP_HOME" in checks["identity key folder"].fix


def test_a_torch_that_dies_while_loading_is_a_failed_check_and_no_crash():
    (check,) = room._model(ended(stderr="Traceback\nOSError: libtorch.so not found", code=1))
    assert check.state is State.FAIL
    assert check.finding == "torch does not load: OSError: libtorch.so not found"
    (killed,) = room._model(ended(code=-9))
    assert "code -9" in killed.finding


def test_a_pack_that_does_not_load_fails_and_a_network_call_warns():
    seen = {"torch": "2", "gpu": [], "mps": False, "network": []}
    *_, pack = room._model(ended(json.dumps(seen), "MedclipError: hash mismatch", 1))
    assert pack.state is State.FAIL
    assert "hash mismatch" in pack.finding
    seen |= {"pack": "medclip-mini, 256 dimensions", "network": ["socket.connect"]}
    *_, network = room._model(ended(json.dumps(seen)))
    assert network.state is State.WARN


def test_the_command_prints_fixes_and_ends_with_1_when_a_check_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from medclip.cli.main import main

    bad = Diagnosis((Check("python", State.PASS, "3.11"), Check("torch", State.FAIL, "does not load", "reinstall it")))
    monkeypatch.setattr("medclip.inspecting.doctor.diagnose", lambda settings: bad)
    assert main(["doctor"]) == 3
    shown = capsys.readouterr().out
    assert "FAIL  torch   does not load" in shown
    assert "-> reinstall it" in shown
    assert "1 PASS, 0 WARN, 1 FAIL" in shown
    assert "INFO" not in shown
    assert main(["doctor", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == json.loads(bad.to_json())
    monkeypatch.setattr("medclip.inspecting.doctor.diagnose", lambda settings: Diagnosis(bad.checks[:1]))
    assert main(["doctor"]) == 0


def test_a_settings_file_that_cannot_be_read_keeps_no_doctor_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from medclip.cli.main import main

    (tmp_path / "medclip.toml").write_text("not toml")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "medclip.toml"))
    monkeypatch.setattr(
        "medclip.inspecting.doctor.diagnose", lambda settings: Diagnosis((room._settings_file(Settings()),))
    )
    assert main(["models", "list"]) == 2
    assert main(["doctor"]) == 3


def test_the_checks_import_no_torch_into_this_process():
    code = "import sys; from medclip.inspecting import doctor as d; d._model = list; d.diagnose(); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
