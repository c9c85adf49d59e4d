"""The verb `view`: one image that shows what a model would see of a file, beside what is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import WithModel
from medclip.api.groups.reading import Limits, NamedModality, OneOfMany, Policies
from medclip.api.groups.running import Overwriting, Recipe, settings_of
from medclip.options import argument, option, options
from medclip.settings import parse_window
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.inspecting.draw_view import Viewed


@options
class ViewOptions(Limits, Recipe, WithModel, OneOfMany, NamedModality, Policies, Overwriting):
    """What `view` is asked."""

    path: str | Path = argument("File, or folder of one study.", place=True, present="file or folder")
    out: str | Path = argument("PNG to write; it is put in place when it is complete.", named=True, place=True)
    window: str | None = option(
        "DICOM window: a number from 0, its explanation, CENTRE,WIDTH or none.",
        default=None,
        form="W",
        heading="How files are read",
    )


@verb(ViewOptions)
def view(options: ViewOptions) -> Viewed:
    """Draw what the model would see of a file or series, beside the raw image, with everything that was done to it.

    The image names no file and quotes no identifier from a header; text that is burned into the pixels is shown as
    it is.

    Returns:
        What was drawn.

    Raises:
        MedclipError: Why it cannot be read; PERMISSION_DENIED where nothing can be written; OUTPUT_IN_USE where a file
            is; WRONG_USE for a number beyond those found, an output that is not .png, is a folder or is the input, and
            a window that the file cannot have.
    """
    from medclip.inspecting.draw_view import draw_view
    from medclip.runs.planning.options import parse_modality

    settings = settings_of(options)
    if options.window is not None:
        pixels = replace(settings.policy.pixels, window=parse_window(options.window))
        settings = replace(settings, policy=replace(settings.policy, pixels=pixels))
    return draw_view(
        Path(options.path),
        Path(options.out),
        parse_modality(options.modality),
        options.model,
        options.number,
        settings,
        overwrite=options.overwrite,
    )
