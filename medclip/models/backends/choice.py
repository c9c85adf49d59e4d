"""The back-end of a run: decided before anything is read, part of what the run is, and said in its notes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.models.backends.backend_calibration import (
    FILE_NAME,
    Calibration,
    check_calibration,
    read_calibration,
    read_graph,
)
from medclip.models.backends.known import BACKENDS, BackendKind, check_backend, find_backend, scales_need_images
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import find_pack, read_preprocess
from medclip.version import __version__
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.models.model import Model


AUTO = "auto"


@dataclass(frozen=True)
class BackendChoice:
    """What computes the images of a run."""

    kind: BackendKind
    calibration: Calibration | None = None
    """None for a back-end that was named: nothing bounds what it changes."""
    home: Path | None = None
    """Where the graph of a named back-end is kept for later runs; None keeps none."""

    def load(self, model: Model) -> Model:
        """Return a model that computes with it."""
        from medclip.models.backends.load import load_backend, refuse_misfit

        if self.calibration is not None:
            return load_backend(model, self.kind, read_graph(self.calibration))
        if self.home is None:
            return load_backend(model, self.kind)

        refuse_misfit(model, self.kind)
        return load_backend(model, self.kind, kept_graph(model, self.kind, pack_digest(model.path), self.home))

    def identity(self) -> dict[str, Any] | None:
        """Return what of it makes two runs the same, None for torch in float32, which goes without saying."""
        if self.kind.is_reference:
            return None
        values: dict[str, Any] = {"name": self.kind.name, "versions": self.kind.versions(), "calibration": None}
        if self.calibration is not None:  # what decides and bounds the scores, and no time that was measured
            values["calibration"] = {
                "images": self.calibration.images,
                "num_images": self.calibration.num_held_out,
                # absent where nothing names them, as of calibrations that did not count them
                **({"num_patients": patients} if (patients := self.calibration.num_held_out_patients) else {}),
                "graph": self.calibration.graph,
                "largest_change": self.calibration.judged.largest_change,
                "bound": self.calibration.chosen.bound,
            }
        return values

    @property
    def notes(self) -> tuple[str, ...]:
        """What those who read the results should know of it."""
        return backend_notes(self.identity())


def backend_notes(identity: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what those who read results should know of the back-end that a run's identity names."""
    if identity is None:
        return ()
    kind = BACKENDS.get(identity["name"])
    computed = f"Images were computed by {identity['name'] if kind is None else kind.title}"
    if identity["calibration"] is None:
        return (
            f"{computed}, without a calibration: nobody measured by how much that changes probabilities of this model.",
        )
    calibration = identity["calibration"]
    same = ", with every decision and rank as it was" if kind is not None and kind.is_int8 else ""
    patients = calibration.get("num_patients", 0)
    of_patients = f" of {count(patients, 'patient')}" if patients else ""
    return (
        f"{computed}. On {count(calibration['num_images'], 'image')}{of_patients} that its calibration held out no "
        f"probability changed by more than {calibration['largest_change']:.1e} ({calibration['bound']:g} allowed)"
        f"{same}. {what_may_break(calibration['num_images'], patients, calibration['bound'])}",
    )


def what_may_break(num_images: int, num_patients: int, bound: float) -> str:
    """Write what images that all kept a bound do not rule out.

    Patients are counted where they are known: images of one patient are not independent, and ten of them say little
    more than one. The limit is that of no event among so many (Clopper & Pearson, Biometrika 1934).

    Args:
        num_images: Images that kept it.
        num_patients: Patients of the images; 0 where they are not known.
        bound: Bound of the change of a probability.

    Example:
        >>> what_may_break(300, 59, 0.001)
        'So many cannot rule out that images of 5.0 % of other patients change by more than 0.001 (95 % limit).'
    """
    if num_patients:
        share = f"images of {100 * share_that_may_break(num_patients):.1f} % of other patients"
        return f"So many cannot rule out that {share} change by more than {bound:g} (95 % limit)."
    share = f"{100 * share_that_may_break(num_images):.1f} % of others"
    return (
        f"So many cannot rule out that {share} change by more than {bound:g} (95 % limit; images are counted as if "
        "each were of another patient, and where they are not, it is too low)."
    )


def share_that_may_break(num: int) -> float:
    """Return the upper 95 % limit of the share that breaks a bound which none of so many independent ones broke."""
    return 1 - 0.05 ** (1 / num)


def choose_backend(backend: str | Path | None, model: Any, home: Path, device: str = "cpu") -> BackendChoice | None:
    """Decide what a run computes with; nothing is loaded.

    Args:
        backend: Name of a back-end; folder or file of a calibration; "auto" for the calibration of this pack in the
            settings' home; None for torch in float32.
        model: Name or folder of a pack, or a loaded model, which stands for its pack.
        home: The settings' home, where "auto" looks, see `calibration_home`.
        device: The device that was named beside it.

    Raises:
        MedclipError: WRONG_USE, MISSING_FILE, MISSING_CODEC or CORRUPT for one that cannot be used here.
    """
    if backend is None:
        return None
    pack = find_pack(model)
    digest = pack_digest(pack)
    name = str(backend)
    if name == AUTO:
        backend = calibration_home(home, digest)
        if not (backend / FILE_NAME).is_file():
            raise MedclipError(
                Reason.MISSING_FILE,
                f"there is no calibration of the model {pack.name} on this machine.",
                hint=f"Make one: `medclip models calibrate {model if isinstance(model, str) else pack} --images "
                "FOLDER`; or leave --backend out.",
            )
    if name in BACKENDS or (name != AUTO and not Path(name).exists()):
        kind = find_backend(name)
        check_backend(kind, device)
        if kind.needs_images:
            raise scales_need_images(kind)
        choice = BackendChoice(kind, home=home)
    else:
        calibration = read_calibration(backend)
        check_calibration(calibration, digest)
        if device != "cpu" and not BACKENDS[calibration.choice].is_reference:
            raise MedclipError(
                Reason.WRONG_USE,
                f"a calibration holds for the processor that it was made on, and the device {device} is named.",
                hint="Leave --device out, or name a back-end: --backend bf16-compiled.",
            )
        choice = BackendChoice(BACKENDS[calibration.choice], calibration)
    if not choice.kind.is_reference:
        _refuse_misfit(choice.kind, pack, device)
    return choice


def calibrated_here(pack: Path, home: Path) -> tuple[str, ...]:
    """Return what a pack's card says on this machine: the back-end of "auto" and the bound that it keeps.

    Returns:
        One sentence, or none where the pack was not calibrated here or the calibration no longer holds.
    """
    digest = pack_digest(pack)
    folder = calibration_home(home, digest)
    try:
        calibration = read_calibration(folder)
        check_calibration(calibration, digest)
    except MedclipError:
        return ()
    notes = BackendChoice(BACKENDS[calibration.choice], calibration).notes
    return notes or ("No other back-end was faster and kept its bound: images are computed by torch in float32.",)


def calibration_home(home: Path, digest: str) -> Path:
    """Return the folder of a pack's calibration in the settings' home."""
    return home / "calibrations" / digest[:16]


def _refuse_misfit(kind: BackendKind, pack: Path, device: str) -> None:
    check_backend(kind, device)
    if read_preprocess(pack).budget is not None and not kind.takes_patches:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the model takes images of any aspect ratio, which the back-end {kind.name} does not.",
            where=pack,
            hint="Leave --backend out.",
        )


_ONLY_RUN_IT = frozenset({"onnxruntime", "openvino"})
"""Libraries that compute a graph and do not make it in float32."""


def kept_graph(model: Model, kind: BackendKind, digest: str, home: Path) -> bytes | None:
    """Return the graph that a back-end runs, from the settings' home where it lies there; None for one that runs none.

    It is kept so that only the first run exports it. Beside the graph lies what it is: its hash, the pack, the
    libraries. A graph whose bytes or whose facts are others is made again; the hash is there against damage, and
    whoever may write into the settings' home may change both.

    Args:
        model: Model that was loaded from the pack; its tower is exported where there is no graph yet.
        kind: The back-end; not one whose scales are set on images.
        digest: Digest of the pack.
        home: The settings' home. Where it cannot be written to, the graph is made for this run alone.
    """
    if not kind.runs_graph:
        return None
    folder = home / "graphs" / digest[:16]
    name = kind.name if kind.quantise else "float32"
    path, note = folder / f"{name}.onnx", folder / f"{name}.json"
    facts = _facts_of_graph(kind, digest)
    graph = _read_kept(path, note, facts)
    if graph is not None:
        return graph
    from medclip.models.backends.load import make_graph

    graph = make_graph(model, kind)
    assert graph is not None
    content = {**facts, "sha256": hashlib.sha256(graph).hexdigest(), "num_bytes": len(graph)}
    with suppress(MedclipError):  # a full disk, or a home that nobody may write to
        write_file(path, graph)
        write_file(note, json.dumps(content, indent=1) + "\n")
    return graph


def _facts_of_graph(kind: BackendKind, digest: str) -> dict[str, Any]:
    libraries = {
        name: version for name, version in kind.versions().items() if kind.quantise or name not in _ONLY_RUN_IT
    }
    return {"pack": digest, "medclip": __version__, "made_with": libraries}


def _read_kept(path: Path, note: Path, facts: dict[str, Any]) -> bytes | None:
    try:
        kept_facts = json.loads(note.read_text(encoding="utf-8"))
        if not isinstance(kept_facts, dict) or {name: kept_facts.get(name) for name in facts} != facts:
            return None
        graph = path.read_bytes()
    except (OSError, ValueError):
        return None
    return graph if hashlib.sha256(graph).hexdigest() == kept_facts.get("sha256") else None
