"""A folder of slide features: rows for all slides, vectors for those that were embedded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.slides.slide_features import write_slide_features
from medclip.slides.slide_store import RUN, SLIDES, SlideRow, features_path, open_slide_store
from tests.kits.slide_store import PACK, make_slide_features, write_slide_store

EMPTY = SlideRow("f" * 16, "slide_00.tiff", 1, "skipped", "no_tissue", "no tissue was found on the slide.")


def test_every_slide_has_a_row_and_only_those_with_vectors_are_iterated_over(tmp_path: Path):
    slides = [make_slide_features("1" * 16), make_slide_features("2" * 16, num=5, num_lost=3)]
    store = open_slide_store(write_slide_store(tmp_path, slides, [EMPTY]))
    assert [row.status for row in store.rows] == ["done", "skipped", "done"]
    assert store.counts == {"done": 2, "skipped": 1, "failed": 0}
    assert store.keys == ("1" * 16, "2" * 16)
    assert store.pack == PACK
    for read, written in zip(store, slides, strict=True):
        np.testing.assert_array_equal(read.features_ND, written.features_ND)
    assert "14" in repr(store)  # 9 + 5 patches: what is lost does not count
    assert list(store.to_pandas()["reason"].dropna()) == ["no_tissue"]


def test_a_slide_without_vectors_and_vectors_of_another_slide_or_model_are_refused(tmp_path: Path):
    store = open_slide_store(write_slide_store(tmp_path, [make_slide_features("1" * 16)], [EMPTY]))
    with pytest.raises(MedclipError) as caught:
        store.read(EMPTY.key)
    assert caught.value.reason is Reason.WRONG_USE
    for other in (make_slide_features("2" * 16), make_slide_features("1" * 16, pack=replace(PACK, digest="e" * 64))):
        write_slide_features(features_path(tmp_path, "1" * 16), other)
        with pytest.raises(MedclipError) as caught:
            store.read("1" * 16)
        assert caught.value.reason is Reason.CHANGED


@pytest.mark.parametrize("name", [RUN, SLIDES])
def test_a_folder_that_is_not_complete_says_so(tmp_path: Path, name: str):
    folder = write_slide_store(tmp_path, [make_slide_features()])
    (folder / name).write_bytes(b"{}")
    with pytest.raises(MedclipError) as caught:
        open_slide_store(folder)
    assert caught.value.reason is Reason.CORRUPT
    (folder / name).unlink()
    with pytest.raises(MedclipError) as caught:
        open_slide_store(folder)
    assert caught.value.reason is Reason.MISSING_FILE
