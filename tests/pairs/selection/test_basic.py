"""`basic`: DataComp's rule to the bit, and the medical one beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.pairs.selection.basic import BasicSettings, basic
from medclip.pairs.selection.run_steps import read_steps
from medclip.pairs.selection.steps import Verdict
from tests.kits.piles import context, every_row, pile_of

SAYS = "A nodule in the left lobe."


def asked(columns: dict[str, Any], images: Any = (), max_side: int | None = None, **settings: Any) -> Verdict:
    pile = pile_of(columns, images, max_side)
    return basic(pile, every_row(pile), BasicSettings(**settings), context(), 1)


def kept(columns: dict[str, Any], images: Any = (), max_side: int | None = None, **settings: Any) -> list[bool]:
    return asked(columns, images, max_side, **settings).kept_M.tolist()


@pytest.mark.golden
def test_the_reference_keeps_what_datacomp_keeps(golden: Path) -> None:
    g = np.load(golden / "datacomp_filters.npz")
    columns = {"text": g["captions"].tolist(), "width": g["width"].tolist(), "height": g["height"].tolist()}
    np.testing.assert_array_equal(asked(columns, reference=True).kept_M, g["basic_mask_all_english"])


def test_the_hand_example_of_the_spec() -> None:
    sizes = [(600, 200), (601, 200), (200, 600), (199, 199), (300, 300), (300, 300)]
    columns = {
        "text": ["ct chest lesion"] * 4 + ["a b c", "ab cdef"],
        "width": [w for w, _ in sizes],
        "height": [h for _, h in sizes],
    }
    assert kept(columns, reference=True) == [True, False, True, False, False, False]


def test_the_reference_follows_the_language_that_a_table_states() -> None:
    columns = {"text": [SAYS] * 3, "width": [300] * 3, "height": [300] * 3, "language": ["en", "de", "en-GB"]}
    assert kept(columns, reference=True) == [True, False, True]
    assert kept(columns) == [True] * 3


def test_another_language_is_counted_and_kept() -> None:
    texts = [SAYS, "Rundherd im linken Unterlappen und kein Erguss.", "左肺下叶结节影", "Узелок в левом легком."]
    verdict = asked({"text": texts, "width": [300] * 4, "height": [300] * 4})
    assert verdict.kept_M.all()
    assert verdict.facts["not_english"] == 3
    assert "3 captions may be in another language" in verdict.notes[0]


@pytest.mark.parametrize(
    "text", ["Chest X-ray image of X-ray", "an MRI scan", "computed tomography scan image", "H&E slide of"]
)
def test_a_caption_that_only_names_the_modality_is_dropped(text: str) -> None:
    assert kept({"text": [text, f"{text} with a cyst"], "width": [300] * 2, "height": [300] * 2}) == [False, True]


def test_a_report_stands_for_a_caption_that_is_not_there() -> None:
    assert kept({"text": ["", ""], "report": [SAYS, ""], "width": [300] * 2, "height": [300] * 2}) == [True, False]


def test_an_image_that_was_made_smaller_is_not_small() -> None:
    columns = {"text": [SAYS] * 4, "width": [288, 287, 288, 128], "height": [100, 100, 90, 128]}
    assert kept(columns, max_side=288) == [True, False, False, True]
    assert kept(columns) == [False, False, False, True]


def test_a_volume_counts_by_its_slices() -> None:
    columns = {"text": [SAYS] * 2, "width": [20, 20], "height": [90, 20], "num_slices": [8, 7]}
    verdict = asked(columns)
    assert verdict.kept_M.tolist() == [True, False]
    assert verdict.facts["fails"]["few slices"] == 1


def test_what_a_header_says_of_letters_and_localizers_is_heard() -> None:
    columns = {
        "text": [SAYS] * 4,
        "width": [300] * 4,
        "height": [300] * 4,
        "BurnedInAnnotation": ["YES", "NO", "", "no"],
        "ImageType": ["", r"ORIGINAL\PRIMARY\LOCALIZER", r"ORIGINAL\PRIMARY", ""],
    }
    assert kept(columns) == [False, False, True, True]
    assert kept(columns, reference=True) == [True] * 4


def test_images_are_opened_only_where_no_column_has_their_sides() -> None:
    opened: list[int] = []

    class Images(list[Any]):
        def __getitem__(self, row: Any) -> Any:
            opened.append(int(row))
            return super().__getitem__(row)

    images = Images(
        [np.zeros((130, 130, 3)), np.zeros((90, 90, 3)), MedclipError(Reason.CORRUPT, "broken."), None, None]
    )
    columns = {
        "text": [SAYS] * 4 + ["CT"],
        "width": [None, None, None, 300, None],
        "height": [None, None, None, 300, None],
    }
    assert kept(columns, images) == [True, False, False, True, False]
    assert opened == [0, 1, 2]


def test_a_pair_that_has_no_image_is_judged_by_its_words() -> None:
    verdict = asked({"text": [SAYS, "ECG"]})
    assert verdict.kept_M.tolist() == [True, False]
    assert "1 pair without an image" in verdict.notes[0]


@given(st.lists(st.tuples(st.text(max_size=12), st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=20))
def test_what_becomes_of_a_pair_depends_on_no_other(pairs: list[tuple[str, int, int]]) -> None:
    texts, widths, heights = map(list, zip(*pairs, strict=True))
    together = kept({"text": texts, "width": widths, "height": heights})
    alone = [kept({"text": [t], "width": [w], "height": [h]})[0] for t, w, h in pairs]
    assert together == alone


def test_a_value_is_that_of_the_first_rule_that_fails() -> None:
    texts = ["A cyst.", "a b c", "an MRI scan", SAYS, SAYS, SAYS, SAYS, SAYS]
    columns = {
        "text": texts,
        "width": [64, 64, 300, 127, 1000, 20, 300, 300],
        "height": [300, 300, 300, 128, 250, 20, 300, 300],
        "num_slices": [None] * 5 + [7, None, None],
        "burned_in": [None] * 6 + [True, None],
    }
    verdict = asked(columns)
    assert verdict.kept_M.tolist() == [False] * 7 + [True]
    assert verdict.value_M is not None
    assert verdict.value_M.tolist() == [2, 5, 3, 127, 4, 7, 1, 6]


def test_a_caption_of_too_many_words_is_dropped_where_a_limit_is_set() -> None:
    texts = [SAYS, "word " * 7, "word " * 40_000, "左肺下叶结节影像检查", "a b"]
    columns = {"text": texts, "width": [300] * 5, "height": [300] * 5}
    verdict = asked(columns, max_words=6)
    assert verdict.kept_M.tolist() == [True, False, False, False, False]
    assert verdict.value_M is not None
    assert verdict.value_M.tolist() == [6, 7, 40_000, 11, 2]
    assert verdict.facts["fails"]["many words"] == 3
    assert not verdict.notes or "512" not in " ".join(verdict.notes)


@pytest.mark.parametrize("reference", [False, True])
def test_captions_longer_than_a_text_tower_reads_are_counted_and_kept_without_a_limit(reference: bool) -> None:
    texts = [SAYS, "word " * 512, "word " * 513, "word " * 40_000, "word " * 600]
    columns = {"text": texts, "width": [300] * 5, "height": [300] * 4 + [10]}
    verdict = asked(columns, reference=reference)
    assert verdict.kept_M.tolist() == [True] * 4 + [False]
    assert any("2 captions of more than 512 words kept" in note for note in verdict.notes)
    assert "many words" not in verdict.facts["fails"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"reference": True}, "the reference has no"), ({"more_words_than": 77}, "no caption has at most 77 words")],
)
def test_a_limit_that_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(MedclipError, match=says):
        read_steps({"steps": [{"basic": {"max_words": 77, **settings}}]})
