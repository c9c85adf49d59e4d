"""The examples for systemd, Slurm and Kubernetes: they parse, their commands exist, and their shards are merged."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from medclip.api.score import score
from medclip.cli.main import main
from medclip.exit_codes import ExitCode
from medclip.settings import Settings
from tests.kits.loaded_python import Programs
from tests.kits.scoring import digests, make_pack, small_folder

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SCRIPTS = sorted((DEPLOY / "slurm").iterdir())
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())


def commands(path: Path) -> list[str]:
    """Every call of medclip in a file, on one line."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    text = text.replace("\\\n", " ")
    return [m[1] for m in re.finditer(r"(?:^|[/= ])medclip ((?:score|watch|runs merge)\b[^\n|]*)", text, re.M)]


@pytest.mark.parametrize("path", [*UNITS, *SCRIPTS, *MANIFESTS], ids=lambda path: path.name)
def test_every_command_and_option_of_an_example_exists(path: Path, capsys: pytest.CaptureFixture[str]):
    if path.suffix == ".timer":
        return
    calls = commands(path)
    assert calls
    for call in calls:
        words = shlex.split(call)
        name = words[:2] if words[0] == "runs" else words[:1]
        assert main([*name, "--help-all"]) == 0
        known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
        used = {word for word in words if word.startswith("--")}
        assert "--out" in used
        assert used <= known, (path.name, used - known)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd")
def test_systemd_itself_finds_no_fault_in_the_units(tmp_path: Path):
    program = tmp_path / "medclip"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = unit.read_text().replace("/opt/medclip/bin/medclip", str(program))
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if "medclip-" in line]
    assert ours == []


def test_units_take_the_exit_codes_of_medclip_for_what_they_are():
    for unit in UNITS:
        if unit.suffix != ".service":
            continue
        lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")
        assert str(int(ExitCode.SOME_FAILED)) in lines["SuccessExitStatus"].split()
        assert str(int(ExitCode.REFUSED)) in lines["RestartPreventExitStatus"].split()
        assert str(int(ExitCode.INCOMPLETE)) not in lines["RestartPreventExitStatus"].split()
        assert lines["PrivateNetwork"] == "yes"


def test_units_need_no_folder_that_systemd_does_not_make_or_pass_over():
    for unit in (unit for unit in UNITS if unit.suffix == ".service"):
        lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")
        made = {f"/var/lib/{lines['StateDirectory']}", f"/var/log/{lines['LogsDirectory']}"}
        listed = [path for name in ("ReadOnlyPaths", "ReadWritePaths") for path in lines[name].split()]
        assert all(path.startswith("-/") for path in listed)
        used = set(re.findall(r"(?<==| )(/(?:var|etc|srv)/\S+)", f" {lines['ExecStart']} {lines['Environment']}"))
        writable = made | {path.removeprefix("-") for path in listed}
        assert not [path for path in used if not any(Path(path).is_relative_to(place) for place in writable)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(path: Path):
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert path.read_text().startswith("#!/bin/bash\n")


def test_jobs_are_of_as_many_shards_as_they_say_and_run_without_rights():
    documents: list[Any] = [d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text())]
    jobs = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Job"}
    assert set(jobs) == {"medclip-score", "medclip-merge"}
    script = jobs["medclip-score"]["template"]["spec"]["containers"][0]["args"][0]
    assert f'--shard "$shard/{jobs["medclip-score"]["completions"]}"' in script
    for job in jobs.values():
        pod = job["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert subprocess.run(["sh", "-n", "-c", container["args"][0]], check=False).returncode == 0
        (refused, *_) = job["podFailurePolicy"]["rules"]
        assert refused["onExitCodes"]["values"] == [int(ExitCode.REFUSED)]


@pytest.mark.slow
def test_the_scripts_of_slurm_score_two_shards_and_merge_them(programs: Programs, tmp_path: Path):
    pack = make_pack(tmp_path / "packs" / "tiny")
    root = small_folder(tmp_path / "in")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "medclip").write_text(f'#!/bin/sh\nexec "{programs.python}" -m medclip.cli.main "$@"\n')
    (tools / "medclip").chmod(0o755)
    home = tmp_path / "home" / "medclip"
    home.mkdir(parents=True)
    (home / "medclip.toml").write_text(f'[score]\nmodel = "{pack}"\n')
    env = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(DEPLOY.parent),
        "MEDCLIP_HOME": str(tmp_path / "home"),
        "STUDIES": str(root),
        "OUT": str(tmp_path / "night"),
        "LAUNCH": "",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }
    for task in ("1", "2"):
        subprocess.run(["bash", SCRIPTS[1]], env={**env, "SLURM_ARRAY_TASK_ID": task}, check=True, timeout=200)
    subprocess.run(["bash", SCRIPTS[0]], env=env, check=True, timeout=200)
    score(root, tmp_path / "whole", model=pack, workers=1, settings=Settings(home=home))
    assert digests(tmp_path / "night" / "merged") == digests(tmp_path / "whole")
