"""The verb `pairs synthesize`: synthetic samples for the tail of a pile, marked as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import Limits
from medclip.api.groups.running import Recipe, Told, settings_of
from medclip.options import argument, option, options
from medclip.pairs.synthesis.generators import GENERATORS
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.synthesis.synthesize import SynthesisResult


@options
class SynthesizeOptions(Told, Limits, Recipe):
    """What `pairs synthesize` is asked."""

    pairs: str | Path = argument("Shards that medclip built, of one image a sample.", place=True)
    out: str | Path = argument(
        "Folder to write: synthesized.parquet, report.json and shards.", form="DIR", named=True, place=True
    )
    steps: Any = option(
        "YAML file of what is made: how the tail is found, how much, and generators in the order in which they are "
        f"tried. Generators: {'; '.join(f'{name}: {row.about}' for name, row in GENERATORS.items())}. In Python also a "
        "mapping.",
        default=None,
        form="FILE",
        kind=Path,
        often=True,
        place=True,
    )
    against: Sequence[str | Path] = option(
        "Shards or table that models are measured on: nothing is made of its images or patients, and nothing that "
        "looks like one of its images stays. Other splits of the shards always count.",
        default=(),
        form="PATH",
        kind=Path,
        often=True,
        place=True,
    )


@verb(SynthesizeOptions)
def synthesize(options: SynthesizeOptions) -> SynthesisResult:
    """Make synthetic samples of pairs that name what is rare, and write shards with them beside the real ones.

    Each pair of the tail is one row of synthesized.parquet, with what was made of it or why nothing was. A synthetic
    sample says so in its JSON, with its kind, the keys of its sources and what was drawn. None lies in a split of
    evaluation. The same command ends in the same bytes.

    Returns:
        Counts, the share of synthetic samples, and how unevenly objects are named before and after.

    Raises:
        MedclipError: RECIPE_INVALID for the steps; WRONG_USE for a split of evaluation; NOT_SUPPORTED_YET for shards of
            volumes, ECGs, examinations, or of others; OUTPUT_IN_USE for a folder of other samples.

    Example:
        >>> import medclip
        >>> medclip.pairs.synthesize("shards", "synthesized").num_synthetic  # doctest: +SKIP
    """
    from medclip.pairs.synthesis.synthesize import Synthesis, synthesize
    from medclip.pairs.synthesis.synthesize_steps import read_steps

    given = options.steps
    path = None if given is None or isinstance(given, Mapping) else Path(given)
    steps = read_steps(given if isinstance(given, Mapping) else path)
    against = (options.against,) if isinstance(options.against, str | Path) else options.against
    folder = Path() if path is None else path.parent
    synthesis = Synthesis(Path(options.pairs), Path(options.out), steps, tuple(map(str, against)), folder)
    return synthesize(synthesis, settings_of(options), options.progress)
