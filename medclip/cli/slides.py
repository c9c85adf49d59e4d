"""`medclip slides tissue`, `medclip slides patches` and `medclip slides embed`: the stages of a folder of slides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.cli import options
from medclip.wording import count, number

if TYPE_CHECKING:
    from medclip.slides.stages.run_stage import StageRun

HEADINGS = {"out": "Common options", "size_px": "Patches", "table": "How slides are read", "hash_paths": "Output"}

Slides = Annotated[Path, typer.Argument(help="Slide or folder of slides.", show_default=False, readable=False)]
SizePx = Annotated[int, typer.Option("--size-px", min=1, help="Rows and columns of a patch.")]
PatchMpp = Annotated[float, typer.Option("--patch-mpp", metavar="UM", help="Micrometres per pixel of patches.")]
OverlapPx = Annotated[int, typer.Option("--overlap-px", min=0, help="Rows and columns that neighbours share.")]
MinCoverage = Annotated[
    float, typer.Option("--min-coverage", metavar="P", help="Least share of a patch that is tissue, 0 to 1.")
]
ByPiece = Annotated[
    bool, typer.Option("--by-piece", help="Count the grid from each piece of tissue, not from the slide's corner.")
]
GeoJson = Annotated[bool, typer.Option("--geojson/--no-geojson", help="Write outlines that QuPath opens, or none.")]


def tissue(
    path: Slides,
    out: options.OutFolder,
    workers: options.Workers = None,
    memory: options.Memory = None,
    table: options.Table = None,
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    stage_to: options.StageTo = None,
    key_file: options.KeyFile = None,
    add: options.Add = False,
    retry_failed: options.RetryFailed = None,
    hash_paths: options.HashPaths = False,
    geojson: GeoJson = True,
    as_json: options.Json = False,
) -> int:
    """Find the tissue of slides: a mask and its outlines for each. The same command goes on after a stop.

    Exit code: 0 all done or skipped, 3 some failed, 2 wrong use or refused.
    """
    from medclip.slides.stages.verbs import tissue as run

    return _run(run, path, out, mpp, accept_unterminated, as_json, **_shared(locals()), geojson=geojson)


def patches(
    path: Slides,
    out: options.OutFolder,
    workers: options.Workers = None,
    memory: options.Memory = None,
    size_px: SizePx = 256,
    mpp_um: PatchMpp = 0.5,
    overlap_px: OverlapPx = 0,
    min_coverage: MinCoverage = 0.5,
    by_piece: ByPiece = False,
    table: options.Table = None,
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    stage_to: options.StageTo = None,
    key_file: options.KeyFile = None,
    add: options.Add = False,
    retry_failed: options.RetryFailed = None,
    hash_paths: options.HashPaths = False,
    geojson: GeoJson = True,
    as_json: options.Json = False,
) -> int:
    """Lay a grid over the tissue of slides: the places of their patches. The same command goes on after a stop.

    It takes the tissue that `medclip slides tissue` left in the same folder.

    Exit code: 0 all done or skipped, 3 some failed, 2 wrong use or refused.
    """
    from medclip.slides.stages.verbs import places as run

    return _run(
        run, path, out, mpp, accept_unterminated, as_json, **_shared(locals()), geojson=geojson, size_px=size_px,
        mpp_um=mpp_um, overlap_px=overlap_px, min_coverage=min_coverage, by_piece=by_piece,
    )  # fmt: skip


def embed(
    path: Slides,
    out: options.OutFolder,
    model: options.Model = "medclip-mini",
    workers: options.Workers = None,
    memory: options.Memory = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="TYPE", help="How vectors are stored: float32 or float16.")
    ] = "float32",
    size_px: SizePx = 256,
    mpp_um: PatchMpp = 0.5,
    overlap_px: OverlapPx = 0,
    min_coverage: MinCoverage = 0.5,
    by_piece: ByPiece = False,
    stain: options.Stain = None,
    qc: Annotated[bool, typer.Option("--qc", help="Measure blur, ink, dirt and folds of each patch.")] = False,
    table: options.Table = None,
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    stage_to: options.StageTo = None,
    key_file: options.KeyFile = None,
    add: options.Add = False,
    retry_failed: options.RetryFailed = None,
    hash_paths: options.HashPaths = False,
    as_json: options.Json = False,
) -> int:
    """Compute the vectors of all patches of slides, one file for each slide. The same command goes on after a stop.

    It takes the tissue and the grids that the other stages left in the same folder, where their options are the same.

    Exit code: 0 all done or skipped, 3 some failed, 2 wrong use or refused.
    """
    from medclip.slides.stages.verbs import embed as run

    return _run(
        run, path, out, mpp, accept_unterminated, as_json, **_shared(locals()), size_px=size_px, mpp_um=mpp_um,
        overlap_px=overlap_px, min_coverage=min_coverage, by_piece=by_piece, qc=qc, stain=stain, dtype=dtype,
        model=model, device=device, batch_size=batch_size,
    )  # fmt: skip


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that every stage takes."""
    names = ("workers", "memory", "table", "stage_to", "key_file", "add", "retry_failed", "hash_paths")
    return {name: values[name] for name in names}


def _run(
    run: Callable[..., StageRun],
    path: Path,
    out: Path,
    mpp: float | None,
    accept_unterminated: bool,
    as_json: bool,
    **arguments: Any,
) -> int:
    from medclip.cli.run_reasons import interrupted
    from medclip.cli.settings_file import command_settings
    from medclip.settings import read_policy

    settings = command_settings(read_policy(mpp_um=mpp, accept_unterminated=accept_unterminated))
    try:
        with _progress(as_json) as shown:
            ended = run(path, out, settings=settings, progress=shown, **arguments)
    except KeyboardInterrupt:
        return interrupted(out)
    if as_json:
        print(json.dumps(ended.to_dict()))
    else:
        _print(ended)
    return ended.exit_code


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    from medclip.cli.progress import progress

    with progress(quiet=quiet) as shown:
        yield shown


def _print(ended: StageRun) -> None:
    """Print how the slides ended, why some were passed over, and where time went."""
    from medclip.errors import printable
    from medclip.slides.stages.run_stage import reasons_of
    from medclip.wording import percent

    if ended.already_finished:
        print("This run was finished before; nothing was computed again.")
    counts = ended.counts
    parts = [f"{count(len(ended.rows), 'slide')}: {number(counts['done'])} done"]
    parts += [f"{number(counts[status])} {status}" for status in ("skipped", "failed") if counts[status]]
    print(f"{', '.join(parts)}.")
    for status, reason, num in reasons_of(ended.rows):
        print(f"  {num:>7} {status}: {reason.replace('_', ' ')}")
    others = ended.num_files - sum(row.num_files for row in ended.rows)
    if others:
        print(f"{count(others, 'file')} in the folder {'is' if others == 1 else 'are'} of no slide.")
    if num_failed := ended.num_failed - sum(row.num_files for row in ended.rows if row.status == "failed"):
        print(f"{number(num_failed)} of them failed; files.parquet says why.")
    if ended.num_lost:
        print(f"{count(ended.num_lost, 'patch', 'patches')} cannot be read: stored pixels are damaged.")
    if ended.stage == "embed" and ended.time:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in ended.time["shares"].items())
        rate = ended.time["patches_per_s"]
        print(f"{rate:.0f} patches a second; work: {shares}. The model waited {percent(ended.time['data_wait'])}.")
    what = "" if ended.stage == "tissue" else f"{count(ended.num_patches, 'patch', 'patches')}, "
    print(f"{what}in {printable(str(ended.folder))}")
