"""The verb `pathgen`: a folder of slides goes in, patches with captions come out as shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance, WithModel
from medclip.api.groups.reading import FileTable, Identity, ImageFormat, Limits, Patches, Policies, Splits, Stains
from medclip.api.groups.running import Batches, Device, HashedPaths, Machine, Recipe, Staging, Told, settings_of
from medclip.options import Rule, argument, excludes, needs, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.sources.slides.pathgen import PathgenResult
    from medclip.pairs.words.agent import CaptionAgent


AGENTS = ("measured", "endpoint", "local")
KEY_VARIABLE = "MEDCLIP_ENDPOINT_KEY"
"""Environment variable that holds the key of an endpoint: on a command line every user of the machine would see it."""


@options
class AskedModel:
    """Which language model is asked, by an option `agent` that says whether one is."""

    heading = "Who writes"
    agent: Any

    endpoint: str | None = option(
        "Address of an OpenAI-compatible API. Its key is read from the variable MEDCLIP_ENDPOINT_KEY.",
        default=None,
        form="URL",
        often=True,
    )
    endpoint_model: str | None = option("Name of the model at the endpoint.", default=None, form="NAME")
    vlm: str | Path | None = option(
        "Folder of a vision-language model of transformers, for the agent `local`.",
        default=None,
        form="DIR",
        place=True,
    )

    rules = (needs("is_local", "vlm", "a local agent needs the folder of its model.", hint="Name it: --vlm DIR."),)

    @property
    def is_local(self) -> bool:
        """Whether a model of a folder writes."""
        return self.agent == "local"


def asks_nobody(condition: str, sentence: str) -> Rule:
    """Return the rule that an agent which asks no model takes no model, with the sentence for whoever names one."""
    return excludes(
        ("endpoint", "endpoint_model", "vlm"), condition, sentence, hint="Say --agent endpoint or --agent local."
    )


@options
class Agents(AskedModel):
    """Who writes captions of patches."""

    agent: str | CaptionAgent = option(
        "Who writes captions. Measured words are about nuclei and stain, by rule; an endpoint is an OpenAI-compatible "
        "API; a local agent is a vision-language model in a folder. In Python also an agent of your own.",
        default="measured",
        form="NAME",
        choices=AGENTS,
        often=True,
    )

    rules = (asks_nobody("is_measuring", "the measuring agent asks no endpoint and no model."),)

    @property
    def is_measuring(self) -> bool:
        """Whether rules write."""
        return self.agent == "measured"


@options
class Selection:
    """Which patches get a caption."""

    heading = "What is looked for"

    num_by_attributes: int = option(
        "Number of patches by attributes of the organ. Those that fit them best are taken.",
        default=64,
        least=0,
        often=True,
    )
    num_by_findings: int = option(
        "Number of patches by findings of the report. Those that fit them best are taken.",
        default=64,
        least=0,
        often=True,
    )
    num_by_clusters: int = option("Number of patches of all kinds, by clusters.", default=256, least=0, often=True)
    cluster_batch: int = option(
        "Number of patches to one unit in the number of clusters; 1 makes many more clusters.", default=128, least=1
    )
    most_cosine: float = option(
        "Cosine that no two chosen patches of a slide exceed.", default=0.95, least=-1, most=1, form="C"
    )


@options
class PathgenOptions(
    Told,
    Limits,
    Recipe,
    WithModel,
    Machine,
    Device,
    Batches,
    Patches,
    Stains,
    FileTable,
    Policies,
    Identity,
    Staging,
    Chance,
    HashedPaths,
    Splits,
    ImageFormat,
    Selection,
    Agents,
):
    """What `pathgen` is asked."""

    path: str | Path = argument(
        "Slide, or folder with slides; what is no slide is passed over.", place=True, present="file or folder"
    )
    out: str | Path = argument(
        "Folder to write; one that holds something else is refused. It gets the tables, the journal and `shards`.",
        named=True,
        place=True,
    )
    table: Any = option(
        "Table of slides: patient, mpp_um, organ, findings (one on a line). It is CSV, TSV or Parquet, whatever its "
        "suffix; in Python also a data frame.",
        default=None,
        kind=Path,
        often=True,
        place=True,
        heading="What is looked for",
    )
    organ: str | None = option(
        "Organ of slides that the table names none of. A TCGA project is understood.",
        default=None,
        often=True,
        heading="What is looked for",
    )
    attributes: str | Path | None = option(
        "YAML file with lists of phrases to look for by organ, beside those of medclip.",
        default=None,
        form="FILE",
        place=True,
        heading="What is looked for",
    )
    store: str | Path | None = option(
        "Folder that `medclip slides embed --qc` wrote of these slides, by the same model. Default: the vectors are "
        "computed, in the folder `slides` of the output folder.",
        default=None,
        form="STORE",
        place=True,
        heading="Patches",
    )
    size_px: int = option("Number of rows and columns of a patch.", default=336, least=1, heading="Patches")
    max_tokens: int | None = option(
        "Greatest number of tokens of a caption. Default: what the text tower takes.",
        default=None,
        least=8,
        heading="Who writes",
    )
    splits: str | Sequence[str] | Mapping[str, float] = option(
        "Shares of the patients that come to each split. Default: train=0.7,val=0.1,test=0.2. In Python also a "
        "mapping.",
        default=(),
        form="NAME=SHARE,...",
        kind=str,
        heading="Output",
    )

    rules = (
        excludes(
            "store",
            ("stage_to", "batch_size"),
            "nothing is embedded where a store is named, so that nothing is staged or batched.",
            hint="Say --stage-to and --batch-size to medclip slides embed.",
            where="store",
        ),
    )


@verb(PathgenOptions)
def pathgen(options: PathgenOptions) -> PathgenResult:
    """Choose patches of slides, have them captioned, and write both as shards, split by patient.

    The same command goes on after a stop, also after an endpoint that went away; slides that came since are taken in.
    Slides that failed are embedded once more after `medclip retry OUT/slides`.

    Returns:
        Slides with their status, records and rejects; `.shards` is the folder to train on.

    Raises:
        MedclipError: For a call that cannot be carried out, and for an endpoint that is gone. A slide that cannot be
            read raises nothing: it has its row.

    Example:
        >>> import medclip
        >>> medclip.pathgen("slides", "captioned", organ="colon").records  # doctest: +SKIP
    """
    from medclip.api.run_arguments import path_of
    from medclip.errors import refuse_missing
    from medclip.models.packs.pack import load_model
    from medclip.pairs.selection.patches import SelectionOptions, read_attributes
    from medclip.pairs.sources.slides.patch_captions import PathgenOptions as PatchOptions
    from medclip.pairs.sources.slides.pathgen import PathgenCall, run_pathgen
    from medclip.progress import Silent
    from medclip.shards.writing.splits import read_shares

    root = path_of(options.path, "the folder of slides")
    refuse_missing(root)
    patches = PatchOptions(
        options.size_px,
        options.patch_mpp_um,
        selection=SelectionOptions(
            options.num_by_attributes,
            options.num_by_findings,
            options.num_by_clusters,
            options.cluster_batch,
            options.most_cosine,
            options.seed,
        ),
        stain=options.stain,  # pyright: ignore[reportArgumentType] (one of its choices)
    )
    call = PathgenCall(
        root,
        path_of(options.out, "the output folder"),
        _agent(options),
        patches,
        store=None if options.store is None else path_of(options.store, "the folder of slide features"),
        table=options.table,
        organ=options.organ,
        attributes=None if options.attributes is None else read_attributes(Path(options.attributes)),
        max_tokens=options.max_tokens,
        splits=read_shares(options.splits),
        seed=options.seed,
        stored=options.image_format,  # pyright: ignore[reportArgumentType] (one of its choices)
        hash_paths=options.hash_paths,
        key_file=None if options.key_file is None else Path(options.key_file),
        device=options.device,
        batch_size=options.batch_size,
        stage_to=None if options.stage_to is None else Path(options.stage_to),
    )
    model = load_model(options.model, device=options.device)
    return run_pathgen(call, model, settings_of(options), options.progress or Silent())


def _agent(options: PathgenOptions) -> CaptionAgent:
    if not isinstance(options.agent, str):
        return options.agent
    if options.agent == "endpoint":
        from medclip.pairs.words.asking_agents import EndpointAgent

        key = os.environ.get(KEY_VARIABLE, "")
        return EndpointAgent(options.endpoint or "", options.endpoint_model or "", key=key)
    if options.agent == "local":
        from medclip.pairs.words.asking_agents import LocalAgent

        assert options.vlm is not None
        return LocalAgent(Path(options.vlm), options.device)
    from medclip.pairs.words.measuring_agent import MeasuringAgent

    return MeasuringAgent()
