"""The examples for systemd, Slurm and Kubernetes: they parse, their commands exist, and their shards are merged."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError
from medclip.exit_codes import ExitCode
from medclip.runs.ledger.ledger import Ledger
from medclip.settings import Settings
from tests.kits.loaded_python import Programs
from tests.kits.scoring import digests, make_pack, small_folder, write_png

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SCRIPTS = sorted((DEPLOY / "slurm").iterdir())
MERGE_SCRIPT, SCORE_SCRIPT = SCRIPTS
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())
Job = subprocess.Popen[bytes]


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


@pytest.fixture
def units_here(tmp_path: Path) -> Path:
    """A folder with the units, whose program exists, and what the watching one has beside it for a PACS."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    write_program(tmp_path / "bin" / "medclip", "")
    for unit in UNITS:
        place = tmp_path / ("medclip-watch.service.d" if unit.suffix == ".conf" else ".") / unit.name
        place.parent.mkdir(exist_ok=True)
        place.write_text(unit.read_text().replace("/opt/medclip/bin/medclip", f"{tmp_path}/bin/medclip"))
    return tmp_path


def analyse(*words: object) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze."""
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_itself_finds_no_fault_in_the_units(units_here: Path):
    names = [unit for unit in units_here.glob("medclip-*") if unit.is_file()]
    assert len(names) == 3
    done = analyse("verify", "--man=no", *names)
    assert [line for line in done.stderr.splitlines() if "medclip-" in line] == []
    slip = units_here / "medclip-watch.service.d" / "pacs.conf"
    slip.write_text(slip.read_text().replace("IPAddressDeny", "IPAddresDeny"))
    assert "IPAddresDeny" in analyse("verify", "--man=no", *names).stderr  # what lies beside a unit is read with it


def test_a_watch_has_no_network_and_one_that_sends_to_a_pacs_has_the_way_there_alone(units_here: Path):
    for sends in (True, False):
        done = analyse(
            "security", "--offline=true", "--json=short", "--threshold=60", units_here / "medclip-watch.service"
        )
        assert done.returncode == 0, done.stdout
        settings = {entry["name"]: bool(entry["set"]) for entry in json.loads(done.stdout)}
        assert settings["PrivateNetwork="] is not sends
        assert settings["PrivateTmp="]
        shutil.rmtree(units_here / "medclip-watch.service.d", ignore_errors=True)
    (sending,) = [unit for unit in UNITS if unit.suffix == ".conf"]
    lines = unit_lines(sending)
    assert "dicomwebs://" in lines["ExecStart"]
    assert (lines["PrivateNetwork"], lines["IPAddressDeny"]) == ("no", "any")
    for unit in (unit for unit in UNITS if unit.suffix == ".service"):
        assert ("://" in unit_lines(unit)["ExecStart"]) == (unit_lines(unit)["PrivateNetwork"] == "no")


def unit_lines(unit: Path) -> dict[str, str]:
    """Return the settings of a unit by their names; of a name that comes twice the last."""
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")


def test_units_take_the_exit_codes_of_medclip_for_what_they_are():
    for unit in UNITS:
        if unit.suffix != ".service":
            continue
        lines = unit_lines(unit)
        assert str(int(ExitCode.SOME_FAILED)) in lines["SuccessExitStatus"].split()
        assert str(int(ExitCode.REFUSED)) in lines["RestartPreventExitStatus"].split()
        assert str(int(ExitCode.INCOMPLETE)) not in lines["RestartPreventExitStatus"].split()


def test_units_need_no_folder_that_systemd_does_not_make_or_pass_over():
    for unit in (unit for unit in UNITS if unit.suffix == ".service"):
        lines = unit_lines(unit)
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


def jobs() -> dict[str, Any]:
    """Return what the manifests say of each Job."""
    documents: list[Any] = [d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text())]
    return {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Job"}


def test_jobs_are_of_as_many_shards_as_they_say_and_run_without_rights():
    assert set(jobs()) == {"medclip-score", "medclip-merge"}
    script = jobs()["medclip-score"]["template"]["spec"]["containers"][0]["args"][0]
    assert f'--shard "$shard/{jobs()["medclip-score"]["completions"]}"' in script
    for job in jobs().values():
        pod = job["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert subprocess.run(["sh", "-n", "-c", container["args"][0]], check=False).returncode == 0
        (refused, *_) = job["podFailurePolicy"]["rules"]
        assert refused["onExitCodes"]["values"] == [int(ExitCode.REFUSED)]


def write_program(path: Path, script: str) -> None:
    """Write a program of a few lines of shell."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("code", "num_restarts", "calls"),
    [
        (0, 0, []),
        (2, 0, []),
        (3, 0, []),
        (4, 0, ["sleep 300", "scontrol requeue 4711"]),
        (130, 19, ["sleep 0", "scontrol requeue 4711"]),
        (4, 20, []),
    ],
)
def test_a_task_of_slurm_is_put_back_after_a_pause_and_not_for_ever(
    tmp_path: Path, code: int, num_restarts: int, calls: list[str]
):
    for name in ("sleep", "scontrol"):
        write_program(tmp_path / "bin" / name, f'echo "{name} $*" >> "{tmp_path}/calls"')
    write_program(tmp_path / "bin" / "medclip", f"exit {code}")
    write_program(tmp_path / "bin" / "srun", f'echo "$*" > "{tmp_path}/srun"; shift; exec "$@"')
    env = {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        **{"STUDIES": "/in", "OUT": "/out", "MEDCLIP_HOME": "/home"},
        **{"SLURM_CPUS_PER_TASK": "8", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "32"},
        **{"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": str(num_restarts)},
    }
    done = subprocess.run(["bash", SCORE_SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (0 if code == 3 else code)
    written = tmp_path / "calls"
    assert (written.read_text().splitlines() if written.exists() else []) == calls
    assert (tmp_path / "srun").read_text().startswith("--cpus-per-task=8 medclip score /in --out /out/shard-2 ")
    assert ("put back 20 times" in done.stderr) == (num_restarts == 20)


def namespace_of_processes() -> list[str]:
    """Return what starts a command as process 1 of processes of its own, as a container does; skip where none may."""
    for rights in ([], ["--user", "--map-root-user"]):
        words = ["unshare", *rights, "--pid", "--fork", "--mount-proc"]
        if (
            shutil.which("unshare")
            and not subprocess.run([*words, "true"], check=False, capture_output=True).returncode
        ):
            return words
    pytest.skip("unshare makes no namespace of processes here: it is missing, or not allowed to")


def start_job(path: Path, tools: Path, env: Mapping[str, str], here: Mapping[str, object] = {}) -> Job:
    """Start the very command of a Job as process 1, with the programs of a folder.

    Args:
        path: The manifest.
        tools: Folder that stands first on PATH.
        env: Environment.
        here: What stands on this machine in the place of parts of the command.
    """
    (container,) = jobs()[f"medclip-{path.stem.removesuffix('-job')}"]["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"]]
    for there, value in here.items():
        words = [word.replace(there, str(value)) for word in words]
    env = {**env, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        [*namespace_of_processes(), *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def process_one(job: Job) -> int:
    """Return the number here of what is process 1 there."""
    (child,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    return int(child)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_sigterm_to_process_one_of_a_pod_reaches_the_command_which_ends_in_its_own_time(path: Path, tmp_path: Path):
    ready = tmp_path / "ready"
    waiting = f"trap 'sleep 0.1; exit 130' TERM; touch {ready}; while :; do sleep 0.01; done"
    write_program(tmp_path / "bin" / "medclip", waiting)
    with start_job(path, tmp_path / "bin", {"JOB_COMPLETION_INDEX": "3"}) as job:
        wait_for(ready.exists)
        os.kill(process_one(job), signal.SIGTERM)
        assert job.wait(20) == 130


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize(("code", "ended"), [("0", 0), ("2", 2), ("3", 0), ("4", 4), ("KILL", 137)])
def test_a_pod_ends_with_the_code_of_the_command_and_some_failed_is_a_success(
    path: Path, code: str, ended: int, tmp_path: Path
):
    write_program(tmp_path / "bin" / "medclip", f"exit {code}" if code.isdigit() else "kill -KILL $$")
    with start_job(path, tmp_path / "bin", {"JOB_COMPLETION_INDEX": "3"}) as job:
        assert job.wait(20) == ended


@pytest.mark.slow
def test_a_pod_that_is_drained_keeps_its_rows_and_the_same_job_ends_as_if_nothing_had_been(tmp_path: Path):
    pack = make_pack(tmp_path / "packs" / "tiny")
    root, results = small_folder(tmp_path / "in"), tmp_path / "results"
    for number in range(120):
        write_png(root / f"{number // 40}" / f"{number}.png", number)
    home = results / "home"
    (home / "medclip").mkdir(parents=True)
    (home / "medclip" / "medclip.toml").write_text(f'[score]\nmodel = "{pack}"\nmodality = "xray"\n')
    write_program(tmp_path / "bin" / "medclip", f'exec "{sys.executable}" -m medclip.cli.main "$@"')
    env = {**os.environ, "PYTHONPATH": str(DEPLOY.parent), "JOB_COMPLETION_INDEX": "0", "MEDCLIP_HOME": str(home)}
    here = {"/studies": root, "/results": results, "/16": "/1", "--workers 4": "--workers 1"}
    merge_manifest, score_manifest = MANIFESTS
    with start_job(score_manifest, tmp_path / "bin", env, here) as job:
        wait_for(lambda: num_rows(results / "shard-1") > 0)
        os.kill(process_one(job), signal.SIGTERM)
        began = time.monotonic()
        code = job.wait(120)
    num_kept = num_rows(results / "shard-1")
    assert code == 130
    assert time.monotonic() - began < jobs()["medclip-score"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 0 < num_kept < 120
    for manifest in (score_manifest, merge_manifest):
        with start_job(manifest, tmp_path / "bin", env, here) as job:
            _, printed = job.communicate(timeout=240)
        assert job.returncode == 0, printed
        if manifest == score_manifest:
            assert f"({num_kept} of them done already)" in printed.decode()
    score(root, tmp_path / "whole", model=pack, modality="xray", workers=1, settings=Settings(home=home / "medclip"))
    assert digests(results / "merged") == digests(tmp_path / "whole")


def num_rows(folder: Path) -> int:
    """Count the files of a run that have their row."""
    try:
        with Ledger(folder, create=False) as ledger:
            return ledger.counts()["files"]
    except MedclipError:  # not begun
        return 0


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
        subprocess.run(["bash", SCORE_SCRIPT], env={**env, "SLURM_ARRAY_TASK_ID": task}, check=True, timeout=200)
    subprocess.run(["bash", MERGE_SCRIPT], env=env, check=True, timeout=200)
    score(root, tmp_path / "whole", model=pack, workers=1, settings=Settings(home=home))
    assert digests(tmp_path / "night" / "merged") == digests(tmp_path / "whole")
