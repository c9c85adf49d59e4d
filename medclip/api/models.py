"""The verbs of `medclip.models` about one pack: listed, shown, cited, verified, imported, exported, with thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import NamedPack, Pack
from medclip.api.groups.running import Overwriting, Recipe
from medclip.options import argument, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.models.interchange.choose_pixels import PresetList
    from medclip.models.interchange.import_export import Exported
    from medclip.models.model import Model
    from medclip.models.packs.card import Card
    from medclip.models.packs.cite import PackCitations
    from medclip.models.packs.pack import PackInfo, PackList
    from medclip.models.packs.set_thresholds import Thresholds

_PACK = "Name or folder of a model pack. In Python also a loaded model."
_OUT = "Folder to write; one that holds something else is refused."


@options
class ListOptions(Recipe):
    """What `models list` is asked."""

    folder: str | Path | None = argument(
        "Folder that packs are looked for in. Default: those that came with medclip.", default=None, place=True
    )


@verb(ListOptions)
def list_packs(options: ListOptions) -> PackList:
    """List the model packs that can be loaded by name, or those of a folder, in alphabetical order.

    Returns:
        A line about each.

    Raises:
        MedclipError: PACK_INVALID for one that cannot be read.
    """
    from medclip.models.packs.pack import list_packs

    return list_packs(None if options.folder is None else Path(options.folder))


@options
class ShowOptions(Recipe, Pack):
    """What `models show` is asked."""


@verb(ShowOptions)
def show(options: ShowOptions) -> Card:
    """Show a pack's card: use, tasks, figures, data, licence, limits.

    Returns:
        The card.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID.
    """
    from medclip.models.packs.pack import pack_card

    return pack_card(options.model)


@options
class CiteOptions(Recipe, Pack):
    """What `models cite` is asked."""


@verb(CiteOptions)
def cite(options: CiteOptions) -> PackCitations:
    """Print BibTeX of a pack, of the data that it was trained on, and of what it began with; > refs.bib keeps it.

    Returns:
        The works; `.bibtex` is the text of a .bib file, `.notes` what the card does not say.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID.

    Example:
        >>> import medclip
        >>> "@software{medclip-mini" in medclip.models.cite("medclip-mini").bibtex
        True
    """
    from medclip.models.packs.cite import cite_pack

    return cite_pack(options.model)


@options
class VerifyOptions(Recipe, Pack):
    """What `models verify` is asked."""


@verb(VerifyOptions)
def verify(options: VerifyOptions) -> PackInfo:
    """Check that a pack can be scored with: its files, weights, architecture and preprocessing; `score` asks the same.

    Returns:
        A line about the pack.

    Raises:
        MedclipError: PACK_NOT_FOUND, UNSAFE_WEIGHTS, PACK_INVALID, PREPROCESSING_MISMATCH; WRONG_USE for a task that
            the vocabulary does not have.

    Example:
        >>> import medclip
        >>> medclip.models.verify("medclip-mini").name
        'medclip-mini'
    """
    from medclip.adaptation.pack.pack_head import read_pack_heads
    from medclip.models.packs.pack import check_pack, pack_card
    from medclip.runs.planning.options import ScoreOptions
    from medclip.scoring.tasks import asked_tasks

    info = check_pack(options.model)
    card = pack_card(info.path)
    heads = read_pack_heads(info.path, card)
    asked_tasks(card, ScoreOptions(), {name: head.text for name, head in heads.items()})
    return info


@options
class ImportOptions(Recipe, NamedPack, Overwriting):
    """What `models import` is asked."""

    weights: str | Path = argument(
        "Checkpoint, or a folder in a layout of open_clip, transformers (CLIP, SigLIP, DINOv2) or timm, a folder with "
        "a text model alone, or a name on the hub with hf-hub: before it. A checkpoint is a state dict or one of a "
        "training, as safetensors or as torch.save wrote it; whatever a recipe's model.start takes is taken here.",
        form="FILE_OR_FOLDER",
        kind=str,
        place=True,
    )
    out: str | Path = argument(_OUT, named=True, place=True)
    architecture: str | None = option(
        "Architecture of a bare checkpoint: its name in open_clip (in timm for an image tower alone), or a JSON file "
        "that describes it.",
        default=None,
        form="NAME|FILE",
        often=True,
    )
    text_folder: str | Path | None = option(
        "Folder with config.json and tokenizer of its BERT, where they do not lie beside it.",
        default=None,
        form="DIR",
        place=True,
    )
    license: str = option("Licence of the weights, as its source states it.", default="", often=True)
    modalities: Sequence[str] = option(
        "Modality that the model knows: xray, ct, pathology and so on. The card states it; nothing is measured.",
        default=(),
        form="M",
        often=True,
    )
    preset: str | Path | None = option(
        "How its authors treat images, where its own files do not say: see `medclip models presets`. A file of your "
        "own is one like those. Named beside a file that says it, it is followed, and the card says where the two "
        "differ; so are --resize, --interpolation, --mean and --std.",
        default=None,
        form="NAME|FILE",
        kind=str,
        often=True,
    )
    resize: str | None = option(
        "How images become squares: longest (padded), shortest (centre cut out) or squash. shortest:256 is 256 px "
        "before the cut.",
        default=None,
        form="MODE[:PX]",
        heading="Images",
    )
    interpolation: str | None = option(
        "Filter of resizing: bicubic, bilinear, lanczos, hamming, box or nearest.",
        default=None,
        form="FILTER",
        heading="Images",
    )
    mean: Sequence[float] | None = option(
        "Mean of a channel, red first, in units of 0 to 1; three in all.", default=None, heading="Images"
    )
    std: Sequence[float] | None = option(
        "Standard deviation of a channel, in the units of the mean; three in all.", default=None, heading="Images"
    )
    crop: str = option(
        "What images are cut to: by modality, as medclip does, or none where the authors' images were whole.",
        default="modality",
        choices=("modality", "none"),
        heading="Images",
    )
    pooling: str | None = option(
        "How an image tower alone makes one vector of its tokens: token, avg, map, mean or token+mean. It is needed "
        "where its config does not say it, or says something else.",
        default=None,
        form="NAME",
        heading="Images",
    )


@verb(ImportOptions)
def import_model(options: ImportOptions) -> Path:
    """Turn a checkpoint or a model folder into a pack, without loss.

    Pickled weights are converted once, in a process of their own that reads tensors and nothing else. A text model
    alone (a BERT) becomes a text folder, for --text-folder and model.text_folder; it has no card, so that nothing of
    one can be given.

    Returns:
        The pack, or the text folder.

    Raises:
        MedclipError: UNSAFE_WEIGHTS, PACK_INVALID, MISSING_FILE, PACK_NOT_FOUND, WRONG_USE, OUTPUT_IN_USE; NON_FINITE
            for weights with NaN or infinity; READ_ERROR or EMPTY_FILE for what is no checkpoint.
    """
    from medclip.models.interchange.choose_pixels import state_pixels
    from medclip.models.interchange.import_export import Statement, import_checkpoint

    return import_checkpoint(
        options.weights,
        Path(options.out),
        Statement(
            architecture=options.architecture,
            text_folder=None if options.text_folder is None else Path(options.text_folder),
            name=options.name,
            licence=options.license,
            modalities=tuple(options.modalities),
            preset=options.preset,
            pixels=state_pixels(options.resize, options.mean, options.std, options.interpolation),
            crop=options.crop,
            pooling=options.pooling,
        ),
        overwrite=options.overwrite,
    )


@options
class ExportOptions(Recipe):
    """What `models export` is asked."""

    model: str | Path | Model = argument(_PACK, form="PACK", kind=str, place=True)
    out: str | Path = argument(_OUT, named=True, place=True)


@verb(ExportOptions)
def export_model(options: ExportOptions) -> Exported:
    """Write a pack as a folder that open_clip loads by local-dir:FOLDER, an image-only pack as one that timm loads.

    In Python that is `create_model_and_transforms("local-dir:OUT")`, and `timm.create_model("local-dir:OUT",
    pretrained=True)`. The weights are the pack's, bit by bit. A BERT text tower's config is named by its absolute path,
    because open_clip looks for relative ones on a hub: an exported folder with a BERT tower is exported anew after it
    was moved.

    Returns:
        The folder, and what another loader has to know.

    Raises:
        MedclipError: What checking the pack's files raises; OUTPUT_IN_USE; WRONG_USE, DISK_FULL or PERMISSION_DENIED
            where nothing can be written.
    """
    from medclip.models.interchange.import_export import export_pack

    return export_pack(options.model, Path(options.out))


@options
class ThresholdOptions(Recipe):
    """What `models set-thresholds` is asked."""

    model: str | Path | Model = argument(_PACK, form="PACK", kind=str, place=True)
    thresholds: Thresholds = argument(
        "The thresholds.json that an audit wrote, whose labels are classes of the task; those of other labels are left "
        "out. In Python also a mapping of classes to numbers, or to mappings with the fields of that file.",
        form="FILE",
        kind=Path,
        place=True,
    )
    task: str = option("Task of the pack's card whose classes the thresholds are of.", form="NAME")
    out: str | Path = option(_OUT, place=True)


@verb(ThresholdOptions)
def set_thresholds(options: ThresholdOptions) -> PackInfo:
    """Write a copy of a pack whose card names thresholds: results then call a study positive or negative.

    Reports then count the studies that reach them, too.

    Returns:
        The new pack.

    Raises:
        MedclipError: WRONG_USE for a task or class that the card does not have; MISSING_FILE, TABLE_INVALID for
            thresholds that cannot be read; OUTPUT_IN_USE; what reading the pack raises.

    Example:
        >>> import medclip
        >>> medclip.models.set_thresholds(
        ...     "medclip-mini", {"pneumonia": 0.62}, task="chest_xray_findings", out="with_threshold"
        ... )  # doctest: +SKIP
    """
    from medclip.models.packs.set_thresholds import copy_with_thresholds

    return copy_with_thresholds(options.model, options.thresholds, task=options.task, out=Path(options.out))


@options
class PresetOptions(Recipe):
    """What `models presets` is asked."""


@verb(PresetOptions)
def presets(options: PresetOptions) -> PresetList:
    """List how the authors of public checkpoints treat images: for --preset of `medclip models import`.

    Returns:
        The presets, with the source of each.

    Example:
        >>> import medclip
        >>> [preset.name for preset in medclip.models.presets()][:3]
        ['medsiglip', 'biomedclip', 'unimed-clip']
    """
    from medclip.models.interchange.choose_pixels import list_presets

    return list_presets()
