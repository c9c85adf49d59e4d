"""Licences have one name however they are stated, and what forbids commerce is never taken for what allows it."""

from __future__ import annotations

import pytest

from medclip.pairs.sources.articles.licenses import class_of_license, license_of


@pytest.mark.parametrize(
    ("stated", "name", "kind"),
    [
        ("CC BY", "CC BY", "commercial"),
        ("CC BY-NC-SA", "CC BY-NC-SA", "non-commercial"),
        ("cc by nc nd", "CC BY-NC-ND", "non-commercial"),
        ("CC0", "CC0", "commercial"),
        ("CC BY-SA", "CC BY-SA", "commercial"),
        ("CC BY-ND", "CC BY-ND", "commercial"),
        ("NO-CC CODE", "NO-CC CODE", "other"),
        ("", "", "other"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0", "commercial"),
        ("open-access http://creativecommons.org/licenses/by-nc/3.0", "CC BY-NC", "non-commercial"),
        ("the Creative Commons Attribution License permits use", "CC BY", "commercial"),
        ("Creative Commons Attribution Non-Commercial License", "CC BY-NC", "non-commercial"),
        ("All rights reserved.", "All rights reserved.", "other"),
    ],
)
def test_a_licence_is_named_and_classed(stated: str, name: str, kind: str) -> None:
    assert license_of(stated) == name
    assert class_of_license(name) == kind
