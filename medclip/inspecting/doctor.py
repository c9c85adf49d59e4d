"""Check an installation: what works, what does not, and the line that fixes it. Changes nothing, needs no network."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from medclip.dicom.codecs.transfer_syntax import JPEG_XL, OTHER, READ, VIDEO
from medclip.errors import MedclipError
from medclip.files.readers.memory import SHARE, budget_bytes, gigabytes, machine_memory_bytes
from medclip.files.settings_file import LIMITS, NAME, VARIABLE, find_settings_file, read_settings_file
from medclip.result import Result
from medclip.settings import Settings
from medclip.wording import list_of

DISTRIBUTION = "medclip-imaging"


class FileKind(NamedTuple):
    """Files of one kind and the packages that read them."""

    name: str
    modules: tuple[str, ...]
    fix: str
    """The line that brings them."""


def _extra(name: str) -> str:
    return f"pip install '{DISTRIBUTION}[{name}]'"


KINDS: tuple[FileKind, ...] = (
    FileKind("volumes: NIfTI, Analyze", ("nibabel",), f"pip install --force-reinstall {DISTRIBUTION}"),
    FileKind("volumes: MINC", ("nibabel", "h5py"), _extra("minc")),
    FileKind("slides: SVS, NDPI, MRXS, SCN, BIF and more", ("openslide",), _extra("wsi")),
    FileKind("slides: tiled TIFF, OME-TIFF", ("tifffile", "imagecodecs"), _extra("wsi")),
    FileKind("slides: DICOM", ("wsidicom",), _extra("wsi")),
    FileKind("ECG: WFDB", ("wfdb",), _extra("ecg")),
    FileKind("ECG: WFDB packed as FLAC", ("wfdb", "soundfile"), f"{_extra('ecg')} soundfile"),
    FileKind("ECG: EDF, SCP, XML (aECG, MUSE, Philips)", ("ecgdatakit",), _extra("ecg")),
    FileKind("video: MP4, AVI", ("av",), _extra("video")),
)
COVERED = frozenset({"dicom", "ecg", "minc", "video", "wsi"})
"""Extras that the kinds of file and the transfer syntaxes speak for."""

# A module that is about to be loaded is named first, so that one which takes the process down is known.
_LOAD_EACH = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    print(json.dumps([name, "takes the process down when it loads"]), flush=True)
    try:
        module = importlib.import_module(name)
        print(json.dumps([name, ""]), flush=True)
    except ModuleNotFoundError as error:
        lacks = "is not installed" if error.name == name else f"does not load: {error.name} is not installed"
        print(json.dumps([name, lacks]), flush=True)
    except Exception as error:
        print(json.dumps([name, f"does not load ({type(error).__name__})"]), flush=True)
"""


def broken_modules(
    modules: Sequence[str], run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> Mapping[str, str]:
    """Load modules and say what is wrong with those that do not load.

    Args:
        modules: Names of modules.
        run: Function that starts a process, called as `subprocess.run`.

    Returns:
        Module -> what is wrong; nothing for those that load.
    """
    broken: dict[str, str] = {}
    waiting = list(dict.fromkeys(modules))
    while waiting:
        try:
            command = [sys.executable, "-c", _LOAD_EACH, *waiting]
            done = run(command, capture_output=True, text=True, timeout=120, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        except subprocess.TimeoutExpired:
            return {**broken, **dict.fromkeys(waiting, "takes more than 120 s to load")}
        seen = dict(lines) or {waiting[0]: "could not be tried: Python does not start"}
        broken |= {name: what for name, what in seen.items() if what}
        waiting = [name for name in waiting if name not in seen]  # those behind one that took the process down
    return broken


def readable_kinds(
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> list[tuple[FileKind, str]]:
    """Return for each kind of file what is missing to read it; "" where nothing is."""
    broken = broken_modules([module for kind in KINDS for module in kind.modules], run)
    return [
        (kind, "; ".join(f"{module} {broken[module]}" for module in kind.modules if module in broken)) for kind in KINDS
    ]


_PACKAGES = {"openslide": "openslide-python"}
"""Packages whose name is not that of their module."""
_MIN_FREE_BYTES = 1_000_000_000
# Data loader and reader processes hand images over through shared memory; containers start with 64 MB.
_MIN_SHARED_BYTES = 200_000_000


class State(StrEnum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105 - the outcome of a check, not a password
    WARN = "WARN"
    FAIL = "FAIL"
    INFO = "INFO"
    """Nothing to pass or to mend: what this version does not do, and extras that were left out."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    finding: str
    fix: str = ""
    """The command or step that puts it right; empty where nothing has to be done."""
    details: tuple[str, ...] = ()
    """What was counted, such as packages with their versions, each; only in JSON."""


@dataclass(frozen=True, repr=False)
class Diagnosis(Result):
    """Everything that `doctor` looked at, in a fixed order."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed. Warnings do not count."""
        return all(check.state is not State.FAIL for check in self.checks)

    def _facts(self) -> dict[str, object]:
        named = {state: [check.name for check in self.checks if check.state is state] for state in State}
        return {
            "checks": ", ".join(f"{len(names)} {state}" for state, names in named.items()),
            "failed": list_of(named[State.FAIL], most=5),
            "warnings": list_of(named[State.WARN], most=5),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        checks = sorted(self.checks, key=lambda check: check.state is State.PASS) if most else self.checks
        return [{"check": c.name, "state": str(c.state), "finding": c.finding, "fix": c.fix} for c in checks[:most]]

    def to_json(self) -> str:
        """Return the diagnosis as one JSON object: `ok` and `checks`."""
        return json.dumps({"ok": self.ok, "checks": [asdict(check) for check in self.checks]}, indent=2)


def diagnose(settings: Settings | None = None) -> Diagnosis:
    """Look at Python, packages, decoders, places on disk and the built-in model pack.

    Torch is loaded in a process of its own, so that a broken build is a failed check and not a crash.

    Args:
        settings: Settings, with the place of the identity key; the defaults if not given.
    """
    settings = settings or Settings()
    checks = [
        _python(),
        _name_clash(),
        *_packages(),
        *_syntaxes(),
        *_file_kinds(),
        *_extras(),
        _place("working folder", Path.cwd(), State.WARN, "give --out a folder that you may write"),
        _place(
            "temporary folder", Path(tempfile.gettempdir()), State.FAIL, "set TMPDIR to a folder that you may write"
        ),
        _place("identity key folder", settings.home, State.FAIL, "set MEDCLIP_HOME to a folder that you may write"),
        _settings_file(settings),
        _memory(settings),
        _shared_memory(),
        *_model(),
    ]
    return Diagnosis(tuple(checks))


def _settings_file(settings: Settings) -> Check:
    """Name the settings file that holds, and what it says."""
    name = "settings file"
    try:
        path = find_settings_file(settings)
        file = None if path is None else read_settings_file(path)
    except MedclipError as error:
        return Check(name, State.FAIL, str(error), f"correct the file, or unset {VARIABLE} if it names another")
    if file is None:
        return Check(name, State.INFO, f"none; {settings.home / NAME} would hold, or the one that {VARIABLE} names")
    tables = {LIMITS: file.limits, **file.options}
    details = tuple(
        f"[{table}] {key} = {json.dumps(value)}" for table, values in tables.items() for key, value in values.items()
    )
    return Check(name, State.PASS, f"{file.path}: {'; '.join(details) or 'empty'}", details=details)


def _python() -> Check:
    version = f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"
    return Check("python", State.PASS, version)


def _name_clash() -> Check:
    """Find the unrelated distribution `medclip`, which installs into a folder of the same name."""
    fix = f"pip uninstall medclip; pip install --force-reinstall --no-deps {DISTRIBUTION}"
    name = "import name"
    foreign = _version_of("medclip")
    if foreign is not None:
        return Check(
            name, State.FAIL, f"an unrelated package, medclip {foreign}, is installed and uses the same folder", fix
        )
    package = Path(__file__).resolve().parents[1]
    for entry in dict.fromkeys(sys.path):
        other = Path(entry or ".", "medclip").resolve()
        if other != package and (other / "__init__.py").is_file():
            clash = f"another package named medclip lies in {other.parent}; ours is in {package.parent}"
            return Check(name, State.FAIL, clash, f"remove {other}, or take its folder off the Python path")
    changed = _changed_files()
    if changed:
        return Check(name, State.FAIL, f"{len(changed)} of our files were replaced, the first is {changed[0]}", fix)
    return Check(name, State.PASS, f"medclip is ours, in {package}")


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _changed_files() -> list[str]:
    """List installed files of ours whose hash is not the one pip recorded; empty for an editable install."""
    import base64
    import hashlib

    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    changed = []
    for file in files:
        if file.hash is None or not str(file).startswith("medclip/") or file.suffix != ".py":
            continue
        path = Path(str(file.locate()))
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest() if path.is_file() else b""
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            changed.append(str(file))
    return changed


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]


def _packages() -> list[Check]:
    try:
        needed = [r for r in _requirements() if r.marker is None or r.marker.evaluate({"extra": ""})]
    except metadata.PackageNotFoundError:
        state = f"{DISTRIBUTION} is not installed; Python runs it from {Path(__file__).parents[1]}"
        return [Check("packages", State.WARN, state, "pip install -e . in the folder that holds pyproject.toml")]
    bad, good = [], []
    for need in sorted(needed, key=lambda r: r.name.lower()):
        version = _version_of(need.name)
        line = f"pip install '{need.name}{need.specifier}'"
        if version is None:
            bad.append(Check(f"package {need.name}", State.FAIL, "not installed", line))
        elif not need.specifier.contains(version, prereleases=True):
            state = f"{version}, but {need.specifier} is needed"
            bad.append(Check(f"package {need.name}", State.FAIL, state, line))
        else:
            good.append(f"{need.name} {version}")
    versions = tuple(good)
    return [Check("packages", State.PASS, f"{len(good)} are there in a version that fits", details=versions), *bad]


def _syntaxes() -> list[Check]:
    """List the transfer syntaxes that hold pixels; those that no installation reads are one line."""
    try:
        from medclip.dicom.codecs.decoders import available

        codecs_of = {uid: available(uid) for uid in READ}
    except ImportError as error:
        return [Check("DICOM", State.FAIL, f"pydicom does not load: {error}", "pip install 'pydicom>=3,<4'")]
    checks = []
    for uid, title in READ.items():
        codecs = codecs_of[uid]
        name = f"DICOM {title}"
        if codecs.names:
            checks.append(Check(name, State.PASS, ", ".join(codecs.names)))
        else:
            checks.append(Check(name, State.WARN, "no decoder: such files fail with missing_codec", codecs.missing))
    unread = tuple({**VIDEO, **OTHER}.values())
    codecs_of = f"{len(unread)} transfer syntaxes are not read by this version: video, JPIP and retired ones"
    return [
        *checks,
        Check("DICOM JPEG XL", State.INFO, "read in slides only", details=tuple(JPEG_XL.values())),
        Check("DICOM, the rest", State.INFO, f"{codecs_of}; --json lists them", details=unread),
    ]


def _file_kinds() -> list[Check]:
    checks = []
    for kind, missing in readable_kinds():
        if missing:
            state = f"not readable: {missing}; such files fail with missing_codec"
            checks.append(Check(kind.name, State.WARN, state, kind.fix))
        else:
            with_versions = ", ".join(f"{name} {_version_of(_PACKAGES.get(name, name)) or ''}" for name in kind.modules)
            checks.append(Check(kind.name, State.PASS, with_versions))
    return checks


def _extras() -> list[Check]:
    """Look at what is optional and has nothing to do with reading files."""
    try:
        extras = [
            e
            for e in metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
            if e not in ("all", "dev", "docs", *COVERED)
        ]
        needs = _requirements()
    except metadata.PackageNotFoundError:
        return []
    checks = []
    for extra in extras:
        base = {"extra": ""}
        names = [
            r.name for r in needs if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate(base)
        ]
        missing = [n for n in names if _version_of(n) is None]
        if not missing:
            checks.append(Check(f"extra {extra}", State.PASS, "installed"))
        else:
            state = f"not installed ({', '.join(missing)}); optional"
            checks.append(
                Check(f"extra {extra}", State.INFO, state, f"if you need it: pip install '{DISTRIBUTION}[{extra}]'")
            )
    return checks


def _place(name: str, folder: Path, state: State, fix: str) -> Check:
    """See whether a folder, or the nearest one above it that exists, can be written and has room."""
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest) as handle:
            handle.write(b"medclip")
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        return Check(name, state, f"{folder} cannot be written: {error.strerror}", fix)
    finding = f"{folder} can be written, {free / 1e9:.1f} GB free"
    if free < _MIN_FREE_BYTES:
        return Check(name, State.WARN, finding, "free some space there")
    return Check(name, State.PASS, finding)


def _memory(settings: Settings) -> Check:
    """Return what all processes may take of what there is, and a single file of that."""
    total, budget = machine_memory_bytes(), budget_bytes(settings.memory_bytes)
    if total is None or budget is None:
        return Check("memory", State.INFO, "this system does not say how much there is")
    each = gigabytes(min(budget, settings.reader_memory_bytes))
    state = f"{gigabytes(total)}; all processes together may take {gigabytes(budget)}, one file up to {each}"
    if budget > total:
        return Check("memory", State.WARN, f"{state}, more than there is", f"allow {gigabytes(SHARE * total)}")
    return Check("memory", State.PASS, state)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")  # noqa: S108 - asked for its size only
    if not folder.is_dir():
        return Check("shared memory", State.PASS, "managed by the system")
    usage = shutil.disk_usage(folder)
    state = f"{usage.free / 1e6:.0f} MB free of {usage.total / 1e6:.0f} MB"
    if usage.free < _MIN_SHARED_BYTES:
        return Check(
            "shared memory", State.WARN, state, "in a container start it with --shm-size=1g; else use fewer workers"
        )
    return Check("shared memory", State.PASS, state)


# Runs in a process of its own. The audit hook counts what the built-in pack asks of the network: nothing.
_PROBE = """
import json, sys, warnings
warnings.simplefilter("ignore")
out = {"network": []}
sys.addaudithook(lambda e, a: out["network"].append(e) if e in ("socket.connect", "socket.getaddrinfo") else None)
import torch
out["torch"] = torch.__version__
out["gpu"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
out["mps"] = bool(torch.backends.mps.is_available())
print(json.dumps(out), flush=True)
import numpy as np
from medclip.models.packs.pack import load_model
model = load_model()
size = model.preprocess.size_px
image = model.encode_image(np.zeros((1, size, size, 3), dtype=np.uint8))
text = model.encode_text(["a chest x-ray"])
assert image.shape == text.shape == (1, model.dim) and np.isfinite(image).all()
out["pack"] = f"{model.name}, {model.dim} dimensions"
print(json.dumps(out), flush=True)
"""


def _model(run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> list[Check]:
    fix_torch = "pip install --force-reinstall torch torchvision"
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    try:
        done = run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return [Check("torch", State.FAIL, "loading torch and the built-in pack took more than 300 s", fix_torch)]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    last = (done.stderr.strip().splitlines() or [f"the process ended with code {done.returncode}"])[-1]
    last = last.removeprefix("medclip.errors.MedclipError: ")
    if not lines:
        return [Check("torch", State.FAIL, f"torch does not load: {last}", fix_torch)]
    seen = json.loads(lines[-1])
    gpu = ", ".join(seen["gpu"]) or ("Apple GPU" if seen["mps"] else "none; everything runs on the CPU")
    checks = [Check("torch", State.PASS, f"loads, {seen['torch']}"), Check("GPU", State.PASS, gpu)]
    reinstall = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    if "pack" not in seen:
        return [*checks, Check("built-in pack", State.FAIL, f"does not load: {last}", reinstall)]
    checks.append(Check("built-in pack", State.PASS, f"verified, encodes an image and a text ({seen['pack']})"))
    if seen["network"]:
        checks.append(
            Check("network", State.WARN, "loading the pack tried to reach the network", "set HF_HUB_OFFLINE=1")
        )
    else:
        checks.append(Check("network", State.PASS, "none is needed: the pack loaded without asking for it"))
    return checks
