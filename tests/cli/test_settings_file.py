"""What a machine's settings file says for commands: below the command line, above the defaults, and never by a slip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip.cli.main import main
from medclip.cli.settings_file import command_settings
from medclip.errors import MedclipError
from medclip.files.settings_file import find_settings_file, read_settings_file
from medclip.settings import ReadPolicy, Settings
from tests.kits.scoring import make_pack, write_dicom


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "machine.toml"
    monkeypatch.setenv("MEDCLIP_SETTINGS", str(path))
    return path


def test_options_of_the_file_hold_where_the_command_line_says_nothing(
    pack: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    file.write_text(
        f'[score]\nmodel = "{pack}"\nout = "{tmp_path / "out"}"\nworkers = 1\ntask = ["chest_xray_view"]\n'
        'thumbnails = false\nmin-confidence = 0.5\njson = true\n[embed]\ndtype = "float16"\n'
    )
    assert main(["score", str(tmp_path / "in")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["out"] == str(tmp_path / "out")
    options = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    assert (options["tasks"], options["min_confidence"]) == (["chest_xray_view"], 0.5)
    assert "data:image/jpeg" not in (tmp_path / "out" / "report.html").read_text()
    arguments = ["--out", str(tmp_path / "other"), "--task=modality", "--thumbnails", "--min-confidence", "0.9"]
    assert main(["score", str(tmp_path / "in"), *arguments]) == 0
    options = json.loads((tmp_path / "other" / "run.json").read_text())["options"]
    assert (options["tasks"], options["min_confidence"]) == (["modality"], 0.9)
    assert "data:image/jpeg" in (tmp_path / "other" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[score]\nworkrs = 2\n", "'workrs' is no option of `medclip score`. Did you mean 'workers'"),
        ('[score]\nworkers = "many"\n', "[score] workers does not take 'many'."),
        ("[scroe]\nworkers = 2\n", "there is no command 'scroe'. Did you mean 'score'?"),
        ("[limits]\nmax_pixel = 2\n", "there is no limit 'max_pixel'. Did you mean 'max_pixels'?"),
        ("[limits]\nmax_pixels = -2\n", "[limits] max_pixels is a number above 0, not -2."),
        ("[limits]\nmax_pixels = true\n", "not True."),
        ("[limits]\nfollow_links = 1\n", "[limits] follow_links is true or false, not 1."),
        ('[limits]\nmax_file_bytes = "huge"\n', "[limits] max_file_bytes: a size is a number above 0"),
        ("workers = 2\n", "'workers' stands outside a table"),
        ("[limits]\n[score\n", "no TOML file: look at line 2."),
        pytest.param("x = " + "[" * 5000, "no TOML file.", id="nested beyond what the parser takes"),
    ],
)
def test_a_slip_in_the_file_is_refused_and_the_file_is_named(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
):
    file.write_text(text)
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    assert main(["score", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"medclip: {file}: ")
    assert sentence in error
    assert not (tmp_path / "out").exists()


def test_what_removes_or_replaces_stands_on_the_command_line_only(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file.write_text('[runs.purge]\nremove = "ledger"\nyes = true\n')
    assert main(["runs", "purge", str(tmp_path)]) == 2
    assert "'yes' stands on the command line only" in capsys.readouterr().err


def test_limits_of_the_file_are_those_of_commands_and_python_reads_it_when_asked(file: Path):
    file.write_text('[limits]\ndecode_timeout_s = 2.5\nmax_file_bytes = "1GB"\nfollow_links = true\n')
    settings = command_settings(ReadPolicy(uneven_slices="resample"))
    assert settings.follow_links
    assert (settings.decode_timeout_s, settings.max_file_bytes) == (2.5, 10**9)
    assert settings.policy.uneven_slices == "resample"
    assert Settings().decode_timeout_s == 120.0
    assert read_settings_file(file).settings(Settings()).decode_timeout_s == 2.5


def test_a_limit_of_the_file_decides_what_a_command_reads(
    pack: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    file.write_text(f'[limits]\nmax_pixels = 10\n[watch]\nmodel = "{pack}"\n[score]\nmodel = "{pack}"\n')
    folders = (str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert main(["watch", *folders, "--once", "--settle-s", "0", "--workers", "1"]) == 3
    assert "failed: too large" in capsys.readouterr().out
    assert main(["score", *folders[:2], str(tmp_path / "other"), "--workers", "1"]) == 3
    assert "failed: too large" in capsys.readouterr().out


def test_the_file_lies_in_the_settings_home_or_where_it_is_named_and_never_where_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MEDCLIP_SETTINGS", raising=False)
    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "medclip.toml").write_text("[limits]\nmax_pixels = 5\n")
    assert find_settings_file() is None
    (tmp_path / "home" / "medclip").mkdir(parents=True)
    (tmp_path / "home" / "medclip" / "medclip.toml").write_text("")
    assert find_settings_file() == tmp_path / "home" / "medclip" / "medclip.toml"
    monkeypatch.setenv("MEDCLIP_SETTINGS", str(tmp_path / "gone.toml"))
    with pytest.raises(MedclipError, match="no such settings file"):
        find_settings_file()


def test_the_doctor_shows_what_holds(file: Path):
    from medclip.inspecting.doctor import State, _settings_file

    file.write_text('[limits]\nmax_pixels = 5\n[slides.embed]\nqc = true\n[score]\nlog = "/var/log/x.jsonl"\n')
    check = _settings_file(Settings())
    assert check.state is State.PASS
    assert set(check.details) == {
        "[limits] max_pixels = 5",
        "[slides embed] qc = true",
        '[score] log = "/var/log/x.jsonl"',
    }
    file.write_text("[limits]\nmax_pixels = 0\n")
    assert _settings_file(Settings()).state is State.FAIL


@pytest.mark.parametrize("spelling", ["--recipe={}", "--recipe {}"])
def test_what_a_recipe_names_goes_before_the_file(
    pack: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spelling: str
):
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    file.write_text(f'[score]\nmodel = "{pack}"\nworkers = 1\nmin-confidence = 0.5\nthumbnails = false\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("min_confidence: 0.25\ntask: [chest_xray_view]\n")
    out = str(tmp_path / "out")
    assert main(["score", str(tmp_path / "in"), "--out", out, *spelling.format(recipe).split()]) == 0
    capsys.readouterr()
    options = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    assert (options["tasks"], options["min_confidence"]) == (["chest_xray_view"], 0.25)
