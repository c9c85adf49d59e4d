"""Small inline SVG figures, drawn without style attributes so that a report's content policy can forbid them."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

_WIDTH = 1000
_STATUS_CLASSES = (("scored", "is-good"), ("skipped", "is-wait"), ("failed", "is-bad"))


def bar(probability: float) -> Markup:
    """Draw a horizontal bar for a probability. Its number stands beside it as text, so screen readers skip the bar."""
    width = round(_WIDTH * min(1.0, max(0.0, probability)))
    return Markup(  # noqa: S704 - numbers of ours only
        f'<svg class="bar" viewBox="0 0 {_WIDTH} 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="{_WIDTH}" height="8"/><rect class="fill" width="{width}" height="8"/></svg>'
    )


def status_bar(counts: Mapping[str, int]) -> Markup:
    """Draw how the files ended, as shares of one bar; a status that occurs is at least a sliver wide."""
    total = max(1, sum(counts[name] for name, _ in _STATUS_CLASSES))
    label = ", ".join(f"{counts[name]} {name}" for name, _ in _STATUS_CLASSES)
    parts, left = [f'<rect class="track" width="{_WIDTH}" height="10"/>'], 0
    for name, css_class in _STATUS_CLASSES:
        if counts[name]:
            width = max(6, round(_WIDTH * counts[name] / total))
            parts.append(f'<rect class="{css_class}" x="{left}" width="{max(1, width - 2)}" height="10"/>')
            left += width
    return Markup(  # noqa: S704 - numbers and names of ours only
        f'<svg class="status" viewBox="0 0 {max(_WIDTH, left)} 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )
