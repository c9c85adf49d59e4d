"""What a reader of a page sees of its text."""

from __future__ import annotations

import re
from html import unescape

_BLOCKS = (
    "p|div|li|ul|ol|dl|dt|dd|tr|td|th|caption|section|header|footer|h[1-6]|details|summary|figure|figcaption|article|"
    "main|nav|br|title|head|body|small"
)


def lines_of(page: str) -> list[str]:
    """The text of a page, a line for each block of it; without styles and drawings."""
    text = re.sub(r"<(style|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    text = re.sub(rf"</?(?:{_BLOCKS})\b[^>]*>", "\0", text)
    blocks = unescape(re.sub(r"<[^>]*>", "", text)).split("\0")
    return [line for block in blocks if (line := " ".join(block.split()))]


def run_together(page: str) -> list[str]:
    """Sentences that begin where another ends, without a blank between them."""
    return [line for line in lines_of(page) if re.search(r"[a-z)”’][.!?:;,][A-Z“]", line)]
