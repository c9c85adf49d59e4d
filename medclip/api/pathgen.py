"""The public verb `medclip.pathgen`: a folder of slides goes in, patches with captions come out as shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.run_arguments import path_of
from medclip.captioning.agents.agent import CaptionAgent
from medclip.captioning.agents.endpoint import EndpointAgent
from medclip.captioning.agents.local import LocalAgent
from medclip.captioning.agents.measured import MeasuringAgent
from medclip.captioning.pathgen import PathgenCall, run_pathgen
from medclip.captioning.result import PathgenResult
from medclip.captioning.run import PathgenOptions
from medclip.captioning.selection.choose import SelectionOptions
from medclip.captioning.selection.prompts import read_attributes
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.disk.input_paths import refuse_missing
from medclip.imaging.slides.stain.estimate import METHODS
from medclip.progress import Progress, Silent
from medclip.runs.planning.options import failed_for
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.shards.writing.splits import DEFAULT_SPLITS

if TYPE_CHECKING:
    from medclip.models.model import Model

AGENTS = ("measured", "endpoint", "local")
KEY_VARIABLE = "MEDCLIP_ENDPOINT_KEY"
"""Environment variable that holds the key of an endpoint: on a command line every user of the machine would see it."""


def pathgen(
    path: str | Path,
    out: str | Path,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    agent: str | CaptionAgent = "measured",
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    vlm: str | Path | None = None,
    store: str | Path | None = None,
    organ: str | None = None,
    attributes: str | Path | None = None,
    table: Any = None,
    num_by_attributes: int = 64,
    num_by_findings: int = 64,
    num_by_clusters: int = 256,
    cluster_batch: int = 128,
    most_cosine: float = 0.95,
    size_px: int = 336,
    mpp_um: float = 0.5,
    stain: str | None = None,
    max_tokens: int | None = None,
    splits: Mapping[str, float] | None = None,
    seed: int = 0,
    format: str = "png",
    workers: int | None = None,
    memory: int | str | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    stage_to: str | Path | None = None,
    retry_failed: str | None = None,
    hash_paths: bool = False,
    key_file: str | Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> PathgenResult:
    """Choose patches of slides, have them captioned, and write both as shards, split by patient.

    The same call on the same folder goes on where it was stopped; slides that came since are taken in.

    Args:
        path: A slide, or a folder with slides; what is no slide is passed over.
        out: Output folder for the tables, the journal and `shards`.
        model: Name or folder of a model pack with a text tower: it chooses patches, and its tokenizer counts.
        agent: "measured" (nuclei and stain, by rule), "endpoint", "local", or an agent of your own.
        endpoint: Address of an OpenAI-compatible API. Its key is read from the variable MEDCLIP_ENDPOINT_KEY.
        endpoint_model: Name of the model there.
        vlm: Folder of a vision-language model of transformers, for "local".
        store: Folder of `medclip slides embed` with the vectors of these slides, by the same model and with qualities
            (`qc`); None computes them, in `out/slides`.
        organ: Of slides whose organ the table does not name; a TCGA project is understood.
        attributes: YAML file with lists of phrases for organs, beside those of medclip.
        table: CSV, TSV or Parquet file, or a data frame: file; patient, mpp_um, organ, findings (one on a line).
        num_by_attributes: Patches that fit the organ's attributes best.
        num_by_findings: Patches that fit the findings of their slide's report best.
        num_by_clusters: Patches of all kinds, by k-means.
        cluster_batch: Patches to one unit in the number of clusters; 1 makes many more clusters.
        most_cosine: Cosine that no two chosen patches of a slide exceed.
        size_px: Rows and columns of a patch.
        mpp_um: Its scale in µm/px, whatever the slide's is.
        stain: hed, macenko or reinhard makes colours alike before patches are encoded; stored pixels stay.
        max_tokens: Of a caption; what the text tower takes where None.
        splits: Shares of patients by name; train 0.7, val 0.1, test 0.2 where None.
        seed: Of clusters, draws and splits.
        format: How patches are stored: png or jpeg.
        workers: Reading processes; the settings' where None.
        memory: What all processes may take together.
        device: Torch device of the model, and of a local agent.
        batch_size: Images in one forward pass while slides are embedded; 4 where None.
        stage_to: A folder on a quick disk that slides are copied to while they are embedded.
        retry_failed: Embed the slides once more that failed: those of a reason such as "timeout", or "all".
        hash_paths: Put keyed hashes in the place of paths in slides.parquet.
        key_file: Identity key, where it is not the one in the settings' home.
        settings: Limits.
        progress: Told how far the run is.

    Returns:
        Slides with their status, records and rejects; `.shards` is the folder to train on.

    Raises:
        MedclipError: For a call that cannot be carried out, and for an endpoint that is gone. A slide that cannot be
            read raises nothing: it has its row.

    Example:
        >>> import medclip
        >>> medclip.pathgen("slides", "captioned", organ="colon").records  # doctest: +SKIP
    """
    from medclip.models.packs.pack import load_model

    settings = (settings or Settings()).on_machine(workers, memory)
    root = path_of(path, "the folder of slides")
    refuse_missing(root)
    chosen = _agent(agent, endpoint, endpoint_model, vlm, device)
    options = PathgenOptions(
        size_px,
        mpp_um,
        selection=SelectionOptions(
            num_by_attributes, num_by_findings, num_by_clusters, cluster_batch, most_cosine, seed
        ),
        stain=stain,  # pyright: ignore[reportArgumentType] (checked below)
    )
    _refuse_unknown(stain, METHODS, "way of making stains alike")
    call = PathgenCall(
        root,
        path_of(out, "the output folder"),
        chosen,
        options,
        store=None if store is None else path_of(store, "the folder of slide features"),
        table=table,
        organ=organ,
        attributes=None if attributes is None else read_attributes(path_of(attributes, "the file of attributes")),
        max_tokens=max_tokens,
        splits=splits or DEFAULT_SPLITS,
        seed=seed,
        stored=format,  # pyright: ignore[reportArgumentType] (checked by run_pathgen)
        hash_paths=hash_paths,
        key_file=None if key_file is None else path_of(key_file, "the key file"),
        device=device,
        batch_size=batch_size,
        stage_to=None if stage_to is None else path_of(stage_to, "the folder on a quick disk"),
        retry_failed=failed_for(retry_failed),
    )
    return run_pathgen(call, load_model(model, device=device), settings, progress or Silent())


def _agent(
    agent: str | CaptionAgent, endpoint: str | None, endpoint_model: str | None, vlm: str | Path | None, device: str
) -> CaptionAgent:
    if not isinstance(agent, str):
        return agent
    _refuse_unknown(agent, AGENTS, "agent")
    if agent == "endpoint":
        return EndpointAgent(endpoint or "", endpoint_model or "", key=os.environ.get(KEY_VARIABLE, ""))
    if agent == "local":
        if vlm is None:
            raise MedclipError(
                Reason.WRONG_USE, "a local agent needs the folder of its model.", hint="Name it: --vlm DIR."
            )
        return LocalAgent(path_of(vlm, "the folder of the agent's model"), device)
    if endpoint or endpoint_model or vlm:
        raise MedclipError(
            Reason.WRONG_USE,
            "the measuring agent asks no endpoint and no model.",
            hint="Say --agent endpoint or --agent local.",
        )
    return MeasuringAgent()


def _refuse_unknown(name: str | None, known: Sequence[str], what: str) -> None:
    if name is not None and name not in known:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no {what} called {name!r}.", hint=did_you_mean(name, known, "There are")
        )
