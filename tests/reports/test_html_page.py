"""What every page shares."""

from __future__ import annotations

from medclip.reports.html_page import breakable


def test_long_names_break_behind_separators_and_short_words_and_ages_stay_whole():
    assert breakable("rows 1-3, 0.5: 1.png") == "rows 1-3, 0.5: 1.png"
    name = "north_wing/2021-05-left_lower.dcm"
    assert breakable(name) == "north_<wbr>wing/<wbr>2021-<wbr>05-<wbr>left_<wbr>lower.<wbr>dcm"
    assert breakable("x" * 40) == "x" * 40


def test_a_name_cannot_bring_markup_of_its_own():
    assert breakable("<script>alert(1)</script>_and_more.png").startswith("&lt;script&gt;alert(1)&lt;/<wbr>script&gt;_")
    assert breakable("a_<b>_c") == "a_&lt;b&gt;_c"
