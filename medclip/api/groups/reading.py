"""Options that verbs share on what is read: files, tables, patients, and how slides and shards hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.options import option, options
from medclip.settings import Settings, read_choices

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.files.grouping.studies import GroupBy
    from medclip.files.key_value import Overrides
    from medclip.sample import Modality


@options
class Limits:
    """What may be read."""

    settings: Settings | None = option(
        "Limits of what is read, and the home of the identity key; medclip's own where None.",
        default=None,
        kind=None,
    )


def by_key(option: str, named: Any) -> dict[str, Any]:
    """Return values by their keys, whichever form they are named in."""
    from medclip.files.key_value import read_overrides

    texts = [named] if isinstance(named, str) else named
    if not isinstance(texts, Mapping) and not (
        isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)
    ):
        raise ValueError(f"takes KEY=VALUE, or names with their values, not {named!r}")
    return read_overrides(texts, option)


def _choices(named: Any) -> dict[str, Any]:
    return read_choices(by_key("--reading", named))


@options
class Policies:
    """What is read where a file leaves a choice."""

    heading = "How files are read"

    reading: Overrides = option(
        "What is read where a file leaves a choice. uneven_slices=resample puts series with gaps or uneven spacing on "
        "a regular grid (default: reject); mpp_um=0.25 are the micrometres per pixel of slides that state none, or "
        "that of a printer; accept_unterminated=true reads compressed images that lack their end marker and nothing "
        "else, as some devices write them.",
        default=(),
        form="KEY=VALUE",
        read=_choices,
    )


@options
class NamedModality:
    """Of which modality files are."""

    heading = "How files are read"

    modality: Modality | str | None = option(
        "Modality of the files that neither a table nor their header names.",
        default=None,
        form="M",
        kind=str,
        often=True,
    )


@options
class AnyModality(NamedModality):
    """Of which modality files are, where images of which nobody knows it are welcome, too."""

    heading = "How files are read"

    modality: Modality | str | None = option(
        "Modality of the files that neither a table nor their header names; `unknown` where nobody knows it: those "
        "that are images are read as they are (the generic adapter), and nothing but a search is asked of them.",
        default=None,
        form="M",
        kind=str,
        often=True,
    )


@options
class Believed:
    """How sure an inferred modality must be."""

    heading = "How files are read"

    min_confidence: float = option(
        "Least probability at which an inferred modality is believed.", default=0.8, least=0, most=1, form="P"
    )


@options
class FileTable:
    """What a table says of files."""

    heading = "How files are read"

    table: Any = option(
        "Table that names study, patient and modality of files. It is CSV, TSV or Parquet, whatever its suffix; in "
        "Python also a data frame.",
        default=None,
        often=True,
        kind=Path,
        place=True,
    )


@options
class Studies:
    """How files become studies."""

    heading = "How files are read"

    group_by: GroupBy = option(
        'How files become studies: by UID, table and folder ("auto"), by "folder", or one "file" each.',
        default="auto",
        kind=str,
    )


@options
class Identity:
    """Whom patients and studies are known as."""

    heading = "How files are read"

    key_file: str | Path | None = option(
        "Identity key that patients and studies are hashed with. Default: the one in the settings' home.",
        default=None,
        place=True,
    )


@options
class OneOfMany:
    """Which one is meant of several that lie in one place."""

    number: int = option("Which image, series or record of a folder, from 1.", default=1, least=1)


@options
class PatientColumn:
    """Who is a patient."""

    patient: str | None = option(
        "Column that names the patient; `file` where each file is a patient of its own.", default=None, form="COLUMN"
    )


@options
class TableImages:
    """Where files of a table lie."""

    images: str | Path | Embeddings | None = option(
        "Folder that files of a table are relative to, or of embeddings, and then no image is read. Default: the "
        "table's.",
        default=None,
        form="DIR",
        place=True,
    )


@options
class ImageRoot:
    """Where the files of a table lie."""

    images: str | Path | None = option(
        "Folder that files of a table are relative to. Default: the table's.",
        default=None,
        form="DIR",
        often=True,
        place=True,
    )


@options
class TextTables:
    """How tables of text were written."""

    encoding: str = option(
        "Encoding of tables that are no UTF-8: cp1252, latin-1, utf-16-le.", default="utf-8", form="NAME"
    )


@options
class Splits:
    """Which patients a model learns from, and which it is measured on."""

    splits: str | Sequence[str] | Mapping[str, float] = option(
        "Shares of the patients that come to each split. Default: train=0.7,val=0.1,test=0.2. A column `split` of the "
        "table goes before it. In Python also a mapping.",
        default=(),
        form="NAME=SHARE,...",
        kind=str,
        often=True,
    )


@options
class Patches:
    """How large patches of slides are."""

    heading = "Patches"

    size_px: int = option("Number of rows and columns of a patch.", default=256, least=1, often=True)
    patch_mpp_um: float = option(
        "Micrometres per pixel of patches, whatever the slide's are.", default=0.5, form="UM", often=True
    )


@options
class Stains:
    """How colours of slides are made alike."""

    heading = "Patches"

    stain: str | None = option(
        "Way in which colours are made alike before patches are encoded, by an estimate of each slide. A slide that "
        "none can be made of is encoded as it was scanned.",
        default=None,
        form="NAME",
        choices=("hed", "macenko", "reinhard"),
    )


@options
class ImageFormat:
    """How shards hold images."""

    heading = "What shards hold"

    image_format: str = option(
        "How images are stored: png keeps every grey value, jpeg is for large images and large sets.",
        default="png",
        choices=("png", "jpeg"),
    )


@options
class StoredImages(ImageFormat):
    """How shards of images are written."""

    heading = "What shards hold"

    max_side_px: int = option("Longest side of stored images, in pixels.", default=288, least=16, often=True)
    quality: int = option("Quality of JPEG.", default=95, least=1, most=100)
    samples_per_shard: int = option("Number of samples in one tar.", default=500, least=1)
