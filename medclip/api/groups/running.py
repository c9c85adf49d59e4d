"""Options that verbs share on a call: this machine, a run that goes on, what it writes and whom it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import Policies
from medclip.options import argument, option, options
from medclip.settings import Settings

if TYPE_CHECKING:
    from medclip.progress import Progress


@options
class Told:
    """Who is told of a call."""

    progress: Progress | None = option(
        "Object that is told how far the call is.", default=None, kind=None, of_call=True
    )


@options
class Recipe:
    """What every verb takes whose own `recipe` is of no other kind."""

    recipe: str | Path | None = option(
        "YAML file of these options, or run.json (audit.json) of an earlier run. It has values by the "
        "names of options; what is named beside it overrides it.",
        default=None,
        form="FILE",
        often=True,
        of_call=True,
        place=True,
        heading="Output",
    )


@options
class Machine:
    """What a call may take of this machine."""

    heading = "This machine"

    workers: int | None = option(
        "Number of reading processes. Default: one for each core.", default=None, often=True, beside=True
    )
    memory: int | str | None = option(
        "Memory of all processes together, such as 12GB. Default: 60 % of what the machine or its cgroup has.",
        default=None,
        form="SIZE",
        kind=str,
        beside=True,
    )


@options
class Device:
    """Where a model computes."""

    heading = "This machine"

    device: str = option("Torch device that the model computes on.", default="cpu", often=True)


@options
class Batches:
    """How many images a model computes at once."""

    heading = "This machine"

    batch_size: int | None = option(
        "Number of images in one forward pass. Default: 4, and 64 on a card. It is part of what a run is, as the "
        "device is: other ones may change the last bits.",
        default=None,
        least=1,
    )


@options
class Encoder:
    """How a model computes vectors of images."""

    heading = "This machine"

    backend: str | Path | None = option(
        "What computes the images. The name of a back-end, the folder of a calibration by `medclip models calibrate`, "
        'or "auto" for the one in the settings\' home. Default: torch in float32. It is part of what a run is.',
        default=None,
        form="NAME|auto|DIR",
        kind=str,
        place=True,
    )


@options
class Staging:
    """How slides come from slow storage."""

    heading = "This machine"

    stage_to: str | Path | None = option(
        "Folder on a quick disk that slides are copied to before they are read.",
        default=None,
        form="DIR",
        place=True,
        beside=True,
    )


@options
class Engines:
    """Who computes a run."""

    heading = "Unattended"

    engine: str = option(
        'Who computes: this process ("local"), or N workers on Ray ("ray:N"). "ray" alone is one worker for each '
        "node, or for each GPU; RAY_ADDRESS names the cluster, and without it one is started for the run. Tables are "
        "the same.",
        default="local",
        form="local|ray|ray:N",
        beside=True,
    )
    shard: str | None = option(
        "Part of the run that is done, I/N, in a folder of its own beside others on other machines. `medclip runs "
        "merge` makes the tables of the whole run of all N.",
        default=None,
        form="I/N",
        beside=True,
    )


@options
class WorkFolder:
    """Where a run whose results go to a store keeps its ledger."""

    heading = "Unattended"

    work: str | Path | None = option(
        "Folder on a disk of this machine that holds the ledger, where the output folder lies in a store. The same "
        "call with the same work folder goes on.",
        default=None,
        form="DIR",
        of_call=True,
        place=True,
    )


@options
class Logged:
    """What a run that goes on by itself tells others."""

    heading = "Unattended"

    log: str | Path | Sequence[str | Path] = option(
        "File that events are appended to as JSON lines: counts and reasons, no path and no identifier. One whose name "
        "ends in .prom has metrics for Prometheus' node_exporter in their place.",
        default=(),
        form="FILE",
        kind=Path,
        of_call=True,
        place=True,
    )


@options
class Limited:
    """How much of a run a call does."""

    heading = "Unattended"

    limit: int | None = option(
        "Number of files after which the run stops. They are taken in blocks of 32; the same call without it goes on, "
        "and ends in the same bytes as if it had never been limited.",
        default=None,
        least=1,
        of_call=True,
    )
    dry_run: bool = option(
        "Look at the files, say what would be done, and write nothing. In Python `.counts`, `.files` and `.planned` of "
        "what is returned say it; of a PACS or a store nothing is fetched.",
        default=False,
        of_call=True,
    )


@options
class Additions:
    """What becomes of files that came after an earlier call."""

    heading = "Unattended"

    add: bool = option(
        "Take in files that came since an earlier call on this folder, and those that changed; rows of all others "
        "stay. Without it a folder that grew is refused.",
        default=False,
        of_call=True,
    )


@options
class Resuming:
    """What becomes of a stopped run."""

    heading = "Output"

    resume: bool = option(
        "Go on with a stopped run in the output folder; else a folder with a run in it is refused.",
        default=True,
        of_call=True,
    )


@options
class Overwriting:
    """What becomes of an earlier result."""

    heading = "Output"

    overwrite: bool = option("Replace what is there already.", default=False, often=True, of_call=True)


@options
class RunFolder:
    """A run that is there."""

    folder: str | Path = argument(
        "Output folder of a run; of one that is published in a store, its work folder.", place=True, present="folder"
    )


@options
class OutFolder:
    """Where results go."""

    out: str | Path | None = option(
        "Folder to write; one that holds something else is refused. In Python nothing is written without it.",
        default=None,
        form="DIR",
        needed=True,
        often=True,
        place=True,
    )


@options
class HashedPaths:
    """How tables name files."""

    heading = "Output"

    hash_paths: bool = option(
        "Put keyed hashes in the place of paths in the tables, and in the ledger once the run is finished: names of "
        "files may identify patients.",
        default=False,
    )


@options
class ReportPaths:
    """How pages name files."""

    heading = "Output"

    report_paths: bool = option(
        "Name files in the report. Their names may identify patients; by default files have row number and format.",
        default=False,
        of_call=True,
    )


def settings_of(given: Any) -> Settings:
    """Return the settings that a call reads with: those it was given, with its policies and its share of the machine.

    Args:
        given: A value of a class of options.

    Raises:
        MedclipError: WRONG_USE for a policy, a size or a number of processes that is none.
    """
    settings = given.settings or Settings()
    if isinstance(given, Policies):
        named: Any = given.reading  # as `_choices` returns it; () where none is named
        settings = replace(settings, policy=replace(settings.policy, **dict(named)))
    if isinstance(given, Machine):
        settings = settings.on_machine(given.workers, given.memory)
    return settings
