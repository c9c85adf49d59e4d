"""Mended text is what open_clip's tokenizers make of it, also where the quick way is taken."""

from __future__ import annotations

import html
import string

import ftfy
from hypothesis import given
from hypothesis import strategies as st

from medclip.text.tokenizers.clip import mend


@given(st.text(string.printable + "&#;\x1b\x00é\u2019\ufb01") | st.text())
def test_the_quick_way_for_plain_text_changes_nothing(text: str) -> None:
    assert mend(text) == " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
