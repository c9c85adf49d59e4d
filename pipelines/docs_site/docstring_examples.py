"""An extension of griffe: the `Example:` of a docstring is code on the page of the reference.

griffe reads `Examples:` as a section of code and takes `Example:` for a note in Markdown, where each `>>>` opens three
quotations, lines run together, and `[a][b]` is a link that leads nowhere.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

HEADING = re.compile(r"^Example:$", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Reads `Example:` as `Examples:`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the heading before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = HEADING.sub("Examples:", obj.docstring.value)
