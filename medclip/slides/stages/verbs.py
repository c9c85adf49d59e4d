"""The stages as functions: `medclip.slides.tissue`, `.places` and `.embed`, with the arguments of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.files.disk.input_paths import refuse_missing
from medclip.progress import Progress, Silent
from medclip.runs.call import Call
from medclip.runs.planning.options import ScoreOptions, failed_for
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.slides.stages.options import GridOptions
from medclip.slides.stages.run_stage import EMBED, StageRun, run_stage

if TYPE_CHECKING:
    from medclip.models.model import Model


def tissue(
    path: str | Path,
    out: str | Path,
    *,
    geojson: bool = True,
    stage_to: str | Path | None = None,
    table: Any = None,
    workers: int | None = None,
    memory: int | str | None = None,
    add: bool = False,
    retry_failed: str | None = None,
    hash_paths: bool = False,
    key_file: str | Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> StageRun:
    """Find the tissue of a folder of slides: `medclip slides tissue`.

    Args:
        path: A slide, or a folder; files that are no slides have their row and are passed over.
        out: Output folder of all stages; this one writes `tissue/` in it. The same call goes on where it was stopped.
        geojson: Write the outlines for QuPath, too.
        stage_to: A folder on a quick disk that slides are copied to before they are read.
        table: CSV, TSV or Parquet file, or a data frame, that names study, patient and mpp_um of files.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together, such as "12GB".
        add: Take in slides that came since an earlier call, and those that changed.
        retry_failed: Try the files once more that failed: those of a reason such as "timeout", or "all".
        hash_paths: Put keyed hashes in the place of paths in the tables.
        key_file: Identity key, where it is not the one in the settings' home.
        settings: Limits, and the µm/px of slides that do not say.
        progress: Told how far the run is.

    Returns:
        A row for each slide (`.rows`, `.to_pandas()`), counts and exit code.

    Raises:
        MedclipError: For a call that cannot be carried out. A slide that cannot be read raises nothing: it has its row.
    """
    call = _call(path, out, table, workers, memory, add, retry_failed, hash_paths, key_file, settings, progress)
    return run_stage(call, "tissue", GridOptions(), geojson=geojson, stage_to=_folder(stage_to))


def places(
    path: str | Path,
    out: str | Path,
    *,
    size_px: int = 256,
    mpp_um: float = 0.5,
    overlap_px: int = 0,
    min_coverage: float = 0.5,
    by_piece: bool = False,
    geojson: bool = True,
    stage_to: str | Path | None = None,
    table: Any = None,
    workers: int | None = None,
    memory: int | str | None = None,
    add: bool = False,
    retry_failed: str | None = None,
    hash_paths: bool = False,
    key_file: str | Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> StageRun:
    """Lay a grid of patches over the tissue of a folder of slides: `medclip slides patches`.

    `medclip.slides.patches` reads the patches of one slide; this writes down where those of many are.

    Args:
        path: As `tissue`.
        out: Output folder of all stages; this one writes `patches/` in it, and takes the tissue that is there.
        size_px: Rows and columns of a patch.
        mpp_um: Its scale in µm/px.
        overlap_px: Rows and columns that neighbours share.
        min_coverage: Least share of a patch that is tissue, 0-1.
        by_piece: Count the grid from the corner of each piece of tissue, not from that of the slide.
        geojson: Write the squares for QuPath, too.
        stage_to: A folder on a quick disk that slides are copied to before they are read.
        table: A table, or a data frame, that names study, patient and mpp_um of files.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together, such as "12GB".
        add: Take in slides that came since an earlier call, and those that changed.
        retry_failed: Try the files once more that failed: those of a reason such as "timeout", or "all".
        hash_paths: Put keyed hashes in the place of paths in the tables.
        key_file: Identity key, where it is not the one in the settings' home.
        settings: Limits, and the µm/px of slides that do not say.
        progress: Told how far the run is.

    Returns:
        As `tissue`.

    Raises:
        MedclipError: As `tissue`; WRONG_USE for impossible sizes.
    """
    call = _call(path, out, table, workers, memory, add, retry_failed, hash_paths, key_file, settings, progress)
    options = GridOptions(size_px, mpp_um, overlap_px, min_coverage, by_piece)
    return run_stage(call, "patches", options, geojson=geojson, stage_to=_folder(stage_to))


def embed(
    path: str | Path,
    out: str | Path,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    size_px: int = 256,
    mpp_um: float = 0.5,
    overlap_px: int = 0,
    min_coverage: float = 0.5,
    by_piece: bool = False,
    qc: bool = False,
    stain: str | None = None,
    dtype: str = "float32",
    stage_to: str | Path | None = None,
    table: Any = None,
    workers: int | None = None,
    memory: int | str | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    add: bool = False,
    retry_failed: str | None = None,
    hash_paths: bool = False,
    key_file: str | Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> StageRun:
    """Compute the vectors of all patches of a folder of slides: `medclip slides embed`.

    Args:
        path: As `tissue`.
        out: Output folder of all stages: a file of vectors for each slide in `features/`, slides.parquet, run.json. It
            takes the tissue and the grids that are there, where their options and the slides are the same.
        model: Name or folder of a model pack that was trained on pathology, or a loaded model.
        size_px: Rows and columns of a patch.
        mpp_um: Its scale in µm/px.
        overlap_px: Rows and columns that neighbours share.
        min_coverage: Least share of a patch that is tissue, 0-1.
        by_piece: Count the grid from the corner of each piece of tissue, not from that of the slide.
        qc: Measure each patch, too: blur, ink, dirt, folds (5 to 8 ms a patch).
        stain: hed, macenko or reinhard makes colours alike before patches are encoded, by an estimate of each slide; a
            slide that none can be made of is encoded as it was scanned, and `notes` says so.
        dtype: How vectors are stored: float32, or float16 in half the room.
        device: Torch device that the model computes on.
        batch_size: Images in one forward pass; 4 where None. Other ones may change the last bits.
        stage_to: A folder on a quick disk that slides are copied to before they are read.
        table: A table, or a data frame, that names study, patient and mpp_um of files.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together, such as "12GB".
        add: Take in slides that came since an earlier call, and those that changed.
        retry_failed: Try the files once more that failed: those of a reason such as "timeout", or "all".
        hash_paths: Put keyed hashes in the place of paths in the tables.
        key_file: Identity key, where it is not the one in the settings' home.
        settings: Limits, and the µm/px of slides that do not say.
        progress: Told how far the run is.

    Returns:
        As `tissue`; `.store` reads the vectors, `.time` says where time went.

    Raises:
        MedclipError: As `places`; WRONG_USE for a model of other images.

    Example:
        >>> import medclip
        >>> run = medclip.slides.embed("slides", "out", model="my-pathology-pack")  # doctest: +SKIP
        >>> for features in run.store:  # doctest: +SKIP
        ...     print(features.key, features.features_ND.shape)
    """
    call = _call(
        path, out, table, workers, memory, add, retry_failed, hash_paths, key_file, settings, progress,
        model=model, device=device, batch_size=batch_size,
    )  # fmt: skip
    options = GridOptions(size_px, mpp_um, overlap_px, min_coverage, by_piece)
    return run_stage(call, EMBED, options, dtype=dtype, qc=qc, stain=stain, stage_to=_folder(stage_to))


def _call(
    path: str | Path,
    out: str | Path,
    table: Any,
    workers: int | None,
    memory: int | str | None,
    add: bool,
    retry_failed: str | None,
    hash_paths: bool,
    key_file: str | Path | None,
    settings: Settings | None,
    progress: Progress | None,
    **of_model: Any,
) -> Call:
    table = Path(table) if isinstance(table, str) else table
    refuse_missing(table, "table")
    refuse_missing(Path(path))
    return Call(
        Path(path),
        Path(out),
        options=ScoreOptions(table=table, hash_paths=hash_paths),
        key_file=_folder(key_file),
        settings=(settings or Settings()).on_machine(workers, memory),
        progress=progress or Silent(),
        add=add,
        retry_failed=failed_for(retry_failed),
        **of_model,
    )


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
