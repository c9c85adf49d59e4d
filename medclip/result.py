"""What the result of every verb can do: a short repr, a table in a notebook, a data frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from medclip.errors import MedclipError, Reason

_LONGEST = 100
"""Letters of a fact in the repr."""
_MOST_FACTS = 8
_ROWS_SHOWN = 10
_CAUTION = "caution"
GREY = ' style="color: #80868b"'
"""Of a row that is worth little; readable on white and on black."""


class Result:
    """Base of what verbs return; a subclass says its facts and its rows, and inherits the three ways to see them."""

    def _facts(self) -> Mapping[str, object]:
        """Return a few facts by name, each of one line; no name of a file or patient."""
        raise NotImplementedError

    def _rows(self, most: int | None = None) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the table that stands for the result, at most so many; by default its counts."""
        return list(_counts(vars(self), ()))[:most]

    def _caution(self, row: Mapping[str, Any]) -> str:
        """Return why a row is worth little, which a notebook shows grey beside it; blank for a row like any other."""
        return ""

    def __repr__(self) -> str:
        """Return the name and the facts, in under ten lines."""
        facts = list(self._facts().items())[:_MOST_FACTS]
        return "\n".join([type(self).__name__, *(f"  {name}: {_short(str(value)) or 'none'}" for name, value in facts)])

    def _repr_html_(self) -> str:
        """Return facts and first rows, without empty columns, for a notebook: escaped, no script, nothing loaded."""
        facts = "".join(_line("td", (name, value)) for name, value in self._facts().items())
        rows = self._rows(_ROWS_SHOWN + 1)
        page = f"<p><strong>{escape(type(self).__name__)}</strong></p><table>{facts}</table>"
        if not rows:
            return page
        cautions = [self._caution(row) for row in rows[:_ROWS_SHOWN]]
        names = [name for name in rows[0] if any(row.get(name) not in (None, "") for row in rows)]
        if any(cautions) and _CAUTION in names:  # it is the last
            names.remove(_CAUTION)
        lines = zip(rows, cautions, strict=False)
        last = [_CAUTION] if any(cautions) else []
        body = "".join(
            _line("td", (*map(row.get, names), *([why] if last else ())), style=GREY if why else "")
            for row, why in lines
        )
        more = "<p>More rows: to_pandas()</p>" if len(rows) > _ROWS_SHOWN else ""
        return f"{page}<table>{_line('th', (*names, *last))}{body}</table>{more}"

    def to_pandas(self) -> Any:
        """Return the rows as a pandas data frame.

        Raises:
            MedclipError: MISSING_CODEC where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as e:
            raise MedclipError(
                Reason.MISSING_CODEC, "a data frame needs pandas.", hint="Run: pip install pandas"
            ) from e
        return pd.DataFrame(list(self._rows()))


def _counts(value: Any, path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield a row for each number in a mapping of numbers and of mappings of them; what is neither is left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _counts(inner, (*path, str(name)))
    elif isinstance(value, int) and not isinstance(value, bool):
        what, *inner = path
        yield {"what": what.removeprefix("num_").replace("_", " "), "value": " ".join(inner), "count": value}


def named_counts(counts: Mapping[str, int]) -> str:
    """Return counts by name in one line, such as "train 70, val 10"."""
    return ", ".join(f"{name or '(blank)'} {number}" for name, number in counts.items())


def _line(cell: str, values: Any, style: str = "") -> str:
    return f"<tr{style}>{''.join(f'<{cell}>{escape(_written(value))}</{cell}>' for value in values)}</tr>"


def _written(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
