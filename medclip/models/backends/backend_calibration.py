"""What a calibration measured of the back-ends of one pack on one machine, as the small file that a run names."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, new_folder
from medclip.models.backends.known import BACKENDS, check_backend, cpu_flags
from medclip.result import Result
from medclip.wording import list_of, number

FILE_NAME = "calibration.json"
GRAPH_NAME = "tower.onnx"
FORMAT = 2


@dataclass(frozen=True)
class Judgement:
    """What a back-end did to the scores of images that it was not chosen on."""

    largest_change: float
    where: str
    changed_decisions: int
    changed_ranks: int


@dataclass(frozen=True)
class Candidate:
    """What one back-end did to the scores, and how long it took."""

    name: str
    bound: float
    """Largest change of a probability that is stood for."""
    largest_change: float
    """Largest change of a probability over the images that choose, all tasks and classes, against torch in float32."""
    where: str
    """TASK:CLASS that it was measured in."""
    changed_decisions: int
    """Images and classes (images alone, of a task with one answer) that were decided otherwise."""
    changed_ranks: int
    """Pairs of images in the other order, of those that differ by more than `FLOAT_BOUND` before and after."""
    least_cosine: float
    """Between the vectors of an image."""
    cpu_ms: float
    """Processor time of one image in milliseconds: median of batches, one thread, all back-ends in turn."""
    times_as_fast: float
    """Median over the rounds of the reference's time by this one's."""
    start_s: float = 0.0
    """Seconds of processor time before the first image that each run pays: loading its graph, or compiling."""
    refused: str = ""
    """The figure that broke its bound, or the time by which it is no faster; "" where neither is so."""
    held_out: Judgement | None = None
    """On the other images; None where it was not the fastest that was left, and so was not judged."""
    num_images: int = 0
    """Images that its change was measured on: the first of those that choose, or all of them where it was the fastest
    that was left."""


@dataclass(frozen=True, repr=False)
class Calibration(Result):
    """Which back-end was chosen for a pack on a kind of processor, and all that was measured."""

    pack: Mapping[str, str]
    """name, version, digest (sha256 of the manifest)."""
    medclip: str
    cpu: str
    flags: tuple[str, ...]
    """Instruction sets of the processor; another set, also one with more, has other kernels, and this calibration does
    not hold there."""
    versions: Mapping[str, str]
    """Of the chosen back-end's libraries."""
    batch_size: int
    num_images: int
    """All of them."""
    num_held_out: int
    """Those of them that judged the choice."""
    num_patients: int
    """Named for the images; 0 where nothing names them, and then only equal bytes stay in one half."""
    images: str
    """sha256 over the hashes of the images."""
    tasks: tuple[str, ...]
    choice: str
    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Back-end to why it was not tried."""
    run_images: int = 0
    """Images of a run, as the choice was made: a start counts that much less. 0 where no candidate has one."""
    graph: str = ""
    """sha256 of the graph beside this file; "" where the choice runs none."""
    folder: Path | None = None
    """Where it lies."""
    num_held_out_patients: int = 0
    """Patients of the images that judged the choice; 0 where not every one of them names its patient."""

    seconds: float = 0.0
    """Processor time of the calibration, with loading the pack and reading the images."""

    @property
    def saved_ms(self) -> float:
        """Processor time that the choice saves an image, in milliseconds; 0 for the reference."""
        return max(0.0, self.chosen.cpu_ms * (self.chosen.times_as_fast - 1))

    @property
    def pays_from(self) -> int | None:
        """Number of images from which on the calibration and the start of one run come back; None where they do not."""
        return self._images_for(self.seconds + self.chosen.start_s)

    @property
    def run_pays_from(self) -> int | None:
        """Number of images from which on a later run gains by the choice; None where it does not."""
        return self._images_for(self.chosen.start_s)

    def _images_for(self, seconds: float) -> int | None:
        return max(1, math.ceil(1000 * seconds / self.saved_ms)) if self.saved_ms else None

    def cost_ms(self, candidate: Candidate) -> float:
        """Return the processor time of an image in milliseconds, with its share of the start."""
        return cost_ms(candidate, self.run_images)

    def when_it_pays(self) -> str:
        """Write from how many images on the calibration comes back."""
        if self.pays_from is None:
            return f"never: the calibration took {self.seconds:.0f} s, and no other back-end saves time"
        return (
            f"from {number(self.pays_from)} files on: the calibration took {self.seconds:.0f} s, and a file of one "
            f"image saves {self.saved_ms:.1f} ms; a later run, which starts in {self.chosen.start_s:.1f} s, from "
            f"{number(self.run_pays_from)} on"
        )

    @property
    def chosen(self) -> Candidate:
        """What was measured of the choice."""
        return next(candidate for candidate in self.candidates if candidate.name == self.choice)

    @property
    def judged(self) -> Judgement:
        """What the choice did to the images that it was not chosen on."""
        judgement = self.chosen.held_out
        assert judgement is not None  # a calibration has none for a choice that was not judged
        return judgement

    def to_json(self) -> str:
        """Return the text of calibration.json."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        return json.dumps({"format": FORMAT, **values}, indent=1) + "\n"

    def _facts(self) -> dict[str, object]:
        best = self.chosen
        refused = [f"{c.name} ({c.refused})" for c in self.candidates if c.refused]
        return {
            "pack": f"{self.pack['name']} {self.pack['version']}",
            "choice": f"{self.choice}, {best.times_as_fast:.2f} times as fast as torch in float32",
            "largest change": f"{self.judged.largest_change:.1e} of a probability, {best.bound:g} allowed",
            "measured": f"{self.num_images} images, {self.num_held_out} of them held out, {list_of(self.tasks)}",
            "refused": list_of(refused),
            "pays": self.when_it_pays(),
            "left out": list_of(list(self.left_out)),
            "folder": self.folder or "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(candidate) for candidate in self.candidates[:most]]


def cost_ms(candidate: Candidate, run_images: int) -> float:
    """Return the processor time of an image in milliseconds, with its share of what a run pays before the first.

    Args:
        candidate: A back-end that was timed.
        run_images: Images of a run.
    """
    return candidate.cpu_ms + 1000 * candidate.start_s / max(1, run_images)


def processor_s() -> float:
    """Return the processor time of this process and of those that it waited for: a clock would count other programs."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def write_calibration(folder: Path, calibration: Calibration, graph: bytes | None) -> None:
    """Write a calibration and the graph of its choice; the folder appears whole or not at all.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds something else.
    """
    claim_folder(folder, "calibration", marks=(FILE_NAME,), in_one_step=True)
    with new_folder(folder) as fresh:
        (fresh / FILE_NAME).write_text(calibration.to_json(), encoding="utf-8")
        if graph is not None:
            (fresh / GRAPH_NAME).write_bytes(graph)


def read_calibration(place: str | Path) -> Calibration:
    """Read a calibration.

    Args:
        place: Folder of the calibration, or its calibration.json.

    Raises:
        MedclipError: MISSING_FILE, CORRUPT.
    """
    path = Path(place)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError("format")
        values["candidates"] = tuple(map(_candidate, values["candidates"]))
        values |= {name: tuple(values[name]) for name in ("flags", "tasks")}
        calibration = Calibration(**values, folder=path.parent)
        if calibration.choice not in BACKENDS or calibration.chosen.refused or not calibration.chosen.held_out:
            raise ValueError("choice")
    except FileNotFoundError as e:
        raise MedclipError(
            Reason.MISSING_FILE,
            "there is no calibration here.",
            where=place,
            hint="Make one: `medclip models calibrate PACK --images FOLDER --out FOLDER`.",
        ) from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as e:
        raise MedclipError(
            Reason.CORRUPT,
            "this is not a calibration that this medclip wrote.",
            where=path,
            hint="Make it again with `medclip models calibrate`.",
        ) from e
    return calibration


def read_graph(calibration: Calibration) -> bytes | None:
    """Read the graph of a calibration's choice, None where it runs none.

    Raises:
        MedclipError: CORRUPT where it is missing or has other bytes.
    """
    if not calibration.graph:
        return None
    assert calibration.folder is not None
    path = calibration.folder / GRAPH_NAME
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != calibration.graph:
        raise MedclipError(
            Reason.CORRUPT,
            "the graph is missing or is not the one that was calibrated.",
            where=path,
            hint="Make the calibration again.",
        )
    return content


def check_calibration(calibration: Calibration, pack_digest: str) -> None:
    """Refuse a calibration that does not hold here.

    Raises:
        MedclipError: WRONG_USE for another pack, processor or version of a library; what `check_backend` raises.
    """
    kind = BACKENDS[calibration.choice]
    if calibration.pack["digest"] != pack_digest:
        name = f"{calibration.pack['name']} {calibration.pack['version']}"
        raise _holds_not(calibration, f"was made of another pack, {name}")
    if kind.is_reference:
        return
    check_backend(kind)
    here = cpu_flags()
    if set(calibration.flags) != here:
        lacks, more = sorted(set(calibration.flags) - here), sorted(here - set(calibration.flags))
        differs = [f"which lacks {list_of(lacks)}"] if lacks else []
        differs += [f"which has {list_of(more)} besides"] if more else []
        # One that has more is refused, too: libraries take the kernels of the newest instructions that they find, and
        # nobody measured what those do to the scores.
        raise _holds_not(
            calibration, f"was measured on {calibration.cpu}; this is another processor, {list_of(differs)}"
        )
    installed = kind.versions()
    other = [
        f"{name} {version}, and {installed.get(name)} is installed here"
        for name, version in calibration.versions.items()
        if installed.get(name) != version
    ]
    if other:
        raise _holds_not(calibration, f"was measured with {list_of(other)}")


def _candidate(values: dict[str, Any]) -> Candidate:
    held_out = values.pop("held_out")
    return Candidate(**values, held_out=None if held_out is None else Judgement(**held_out))


def _holds_not(calibration: Calibration, why: str) -> MedclipError:
    return MedclipError(
        Reason.WRONG_USE,
        f"this calibration {why}.",
        where=calibration.folder,
        hint="Calibrate here: `medclip models calibrate PACK --images FOLDER --out FOLDER`; or leave --backend out.",
    )
