"""Step `deduplicate`: copies, images and patients of evaluation, and what is no copy."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash, load_key
from medclip.imaging.registration import Registered
from medclip.pairs.pile import Pile
from medclip.pairs.selection import deduplicate as deduplication
from medclip.pairs.selection import image_links
from medclip.pairs.selection.deduplicate import DeduplicateSettings, copies_of, deduplicate
from medclip.pairs.selection.image_links import WAYS, AlikeAcross, Links
from medclip.pairs.selection.steps import Verdict
from medclip.progress import Silent
from tests.kits.image_piles import context_of, pile_of
from tests.kits.leakage import Pixels, brighter, cropped, film, resized_jpeg


@pytest.fixture(scope="module")
def films() -> list[Pixels]:
    return [film(seed, 120, 110) for seed in range(40)]


def run(pile: Pile, folder: Path, rows: Sequence[int] | None = None, **settings: Any) -> Verdict:
    chosen = np.arange(len(pile)) if rows is None else np.array(rows, np.int64)
    return deduplicate(pile, chosen, DeduplicateSettings(**settings), context_of(folder), 0)


def held_out(monkeypatch: pytest.MonkeyPatch, piles: Mapping[str, Pile]) -> None:
    """Have evaluation sets read from these piles."""
    monkeypatch.setattr("medclip.pairs.selection.deduplicate.read_pile", lambda place, **_: piles[place.name])


def test_copies_go_and_the_longest_caption_stays_whatever_the_way_of_copying(films: list[Pixels], tmp_path: Path):
    copies = [films[3], resized_jpeg(films[7]), cropped(films[11]), brighter(films[20]), cropped(films[30], 0.08)]
    texts = ["a film"] * 40 + ["a film with two captions\nshort", "x", "x", "x", "x"]
    verdict = run(pile_of([*films, *copies], text=texts, patient=[f"P{n}" for n in range(45)]), tmp_path)
    assert np.flatnonzero(~verdict.kept_M).tolist() == [3, 41, 42, 43, 44]
    assert sum(verdict.facts["dropped"].values()) == 5
    assert verdict.facts["dropped"]["pixels"] == 1
    assert verdict.value_M is not None
    assert verdict.value_M[3] == 0
    assert np.isnan(verdict.value_M[verdict.kept_M]).all()


def test_without_patients_what_may_be_the_next_slice_stays(films: list[Pixels], tmp_path: Path):
    next_slice = (0.7 * films[5] + 0.3 * films[6]).astype(np.uint8)
    pile = [*films, films[3], resized_jpeg(films[7], 1.0, 90), next_slice]
    assert np.flatnonzero(~run(pile_of(pile), tmp_path).kept_M).tolist() == [40, 41]
    known = run(pile_of(pile, patient=[f"P{n}" for n in range(43)]), tmp_path)
    assert np.flatnonzero(~known.kept_M).tolist() == [40, 41, 42]


def test_a_tie_of_captions_is_broken_by_key_and_not_by_place(films: list[Pixels], tmp_path: Path):
    verdict = run(pile_of([films[0]] * 3, key=["c", "a", "b"], text=["same"] * 3), tmp_path)
    assert verdict.kept_M.tolist() == [False, True, False]


def test_equal_pixels_of_one_patient_leave_one_whichever_has_the_longest_caption(films: list[Pixels], tmp_path: Path):
    pile = pile_of([films[0]] * 3, text=["x", "the longest", "x"], patient=["P"] * 3)
    assert run(pile, tmp_path).kept_M.tolist() == [False, True, False]


def test_only_the_rows_that_are_asked_are_compared(films: list[Pixels], tmp_path: Path):
    pile = pile_of([films[0], films[1], films[0], films[0]])
    assert run(pile, tmp_path, [1, 2]).kept_M.tolist() == [True, True]
    assert run(pile, tmp_path, [1, 2, 3]).kept_M.tolist() == [True, True, False]
    assert run(pile, tmp_path, []).kept_M.tolist() == []


def test_an_image_that_cannot_be_read_goes_with_its_reason_and_tiny_ones_are_compared_by_pixels(tmp_path: Path):
    tiny = np.arange(12, dtype=np.uint8).reshape(3, 4)
    pile = pile_of([tiny, MedclipError(Reason.CORRUPT, "no image."), tiny, tiny + 1])
    verdict = run(pile, tmp_path)
    assert verdict.kept_M.tolist() == [True, False, False, True]
    assert verdict.facts["unread"] == {"corrupt": 1}
    assert verdict.value_M is not None
    assert np.isnan(verdict.value_M[1])
    assert any("corrupt 1" in note for note in verdict.notes)


def test_what_links_to_evaluation_goes_mirrored_too_and_so_do_its_patients_under_any_name(
    films: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hashed = keyed_hash("patient", "P9", load_key(context_of(tmp_path).settings))
    images = [*films[:30], resized_jpeg(films[30]), films[31][:, ::-1], films[32], films[33], films[34]]
    patients = [f"own{n}" for n in range(30)] + ["one", "two", "one", hashed, "P8"]
    images.append(resized_jpeg(films[33]))  # the image of an evaluation patient, under another name
    patients.append("three")
    sets = {"a": pile_of(films[30:32], patient=["x", "y"]), "b": pile_of(films[36:38], patient=["P9", ""])}
    held_out(monkeypatch, sets)
    verdict = run(pile_of(images, patient=patients), tmp_path, evaluation=("a", "b"))
    assert np.flatnonzero(~verdict.kept_M).tolist() == [30, 31, 32, 33, 35]
    assert verdict.facts["dropped"]["evaluation_image"] == 2
    assert verdict.facts["dropped"]["evaluation_patient"] == 3
    assert run(pile_of(images, patient=patients), tmp_path).kept_M[30:35].all()


def test_a_chain_of_frames_each_alike_to_the_next_keeps_what_is_not_alike(films: list[Pixels], tmp_path: Path):
    steps = [(films[n] * (1 - share), films[n + 1] * share) for n in range(5) for share in np.linspace(0, 1, 12)]
    frames = [(one + other).astype(np.uint8) for one, other in steps]
    of_one = run(pile_of(frames, patient=["P1"] * 60), tmp_path, cropped=False)
    assert of_one.kept_M.sum() > 20
    verdict = run(pile_of(frames, patient=[f"P{n}" for n in range(60)]), tmp_path, cropped=False)
    assert 5 <= verdict.kept_M.sum() <= 15
    assert np.diff(np.flatnonzero(verdict.kept_M), prepend=0, append=59).max() <= 24


def test_the_next_film_of_a_patient_stays_also_where_a_copy_of_one_lies_between(tmp_path: Path):
    first, other = film(1, 120, 110).astype(float), film(2, 120, 110)
    second = (0.7 * first + 0.3 * other).astype(np.uint8)
    images = [first.astype(np.uint8), second, resized_jpeg((0.85 * first + 0.15 * other).astype(np.uint8))]
    apart = run(pile_of(images, patient=["P1", "P2", "P3"], text=["long", "x", "x"]), tmp_path)
    assert apart.kept_M.tolist() == [True, False, False]
    of_one = run(pile_of(images, patient=["P1", "P1", "P3"], text=["long", "x", "x"]), tmp_path)
    assert of_one.kept_M.tolist() == [True, True, False]


def test_a_blank_image_under_many_patients_is_a_caution(tmp_path: Path):
    blank = np.zeros((16, 16), np.uint8)
    verdict = run(pile_of([blank] * 12, patient=[f"P{n}" for n in range(12)]), tmp_path)
    assert verdict.kept_M.sum() == 1
    assert any(note.startswith("Caution: linked images of 12 patients") for note in verdict.notes)


@pytest.mark.shared
def test_planted_copies_and_links_to_evaluation_all_go_and_no_film_of_another_patient(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    films, patients = nih_films(shared, 60)
    pool, theirs = films[:50], films[50:]
    copies = [films[n] if n < 8 else resized_jpeg(films[n]) if n < 16 else cropped(films[n], 0.05) for n in range(24)]
    links = [*theirs[:2], resized_jpeg(theirs[2]), cropped(theirs[3])[:, ::-1], *films[54:56]]
    held_out(
        monkeypatch,
        {"a": pile_of(theirs[:4], patient=patients[50:54]), "b": pile_of(theirs[6:8], patient=patients[54:56])},
    )
    names = [*patients[:50], *(f"copy {n}" for n in range(28)), *patients[54:56]]
    pile = pile_of([*pool, *copies, *links], patient=names, text=["an own caption"] * 50 + ["copy"] * 30)
    verdict = run(pile, tmp_path, evaluation=("a", "b"))
    wrongly_dropped, missed = (~verdict.kept_M[:50]).sum(), verdict.kept_M[50:].sum()
    assert (wrongly_dropped, missed) == (0, 0)
    dropped = verdict.facts["dropped"]
    assert (dropped["pixels"], dropped["evaluation_image"], dropped["evaluation_patient"]) == (8, 4, 2)


def nih_films(shared: Path, num: int) -> tuple[list[Pixels], list[str]]:
    """Read one film each of some patients."""
    folder = shared / "data" / "nih_cxr"
    with (folder / "labels.csv").open() as table:
        rows = {row["patient_id"]: row["file"] for row in csv.DictReader(table)}
    files = dict(list(rows.items())[:num])
    return [np.asarray(Image.open(folder / file).convert("L")) for file in files.values()], [*files]


def test_what_is_alike_in_the_pile_does_not_hide_an_image_of_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    alike = np.eye(1, 64)[0] + 0.01 * rng.standard_normal((130, 64))  # cosines of 0.99 in the pile
    theirs = rng.standard_normal((100, 64))
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    alike[7] = theirs[3] + 0.15 / 8 * rng.standard_normal(64)  # 0.989: below the limit of the pile itself
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    vectors = {130: alike.astype(np.float32), 100: theirs.astype(np.float32)}
    monkeypatch.setattr(deduplication, "load_pack", lambda *_: SimpleNamespace(preprocess=SimpleNamespace(signal=None)))
    monkeypatch.setattr(deduplication, "pack_facts", lambda _: {})
    for module in (deduplication, image_links):
        monkeypatch.setattr(module, "encode_pile", lambda _, pile, *__: SimpleNamespace(vectors_MD=vectors[len(pile)]))
    images = list(rng.integers(0, 256, (230, 16, 16), np.uint8))
    held_out(monkeypatch, {"a": pile_of(images[130:], patient=[f"E{n}" for n in range(100)])})
    pile = pile_of(images[:130], patient=[f"P{n}" for n in range(130)])
    verdict = run(pile, tmp_path, evaluation=("a",), model="any", cropped=False)
    assert np.flatnonzero(~verdict.kept_M).tolist() == [7]
    assert verdict.facts["cosines"][""] > float(alike[7] @ theirs[3]) > verdict.facts["evaluation_cosines"]["a"][""]


def test_films_that_are_alike_in_the_pile_do_not_hide_a_copy_of_another_film_of_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = [(0.85 * film(0, 60, 60) + 0.15 * film(seed + 1, 60, 60)).astype(np.uint8) for seed in range(105)]
    theirs = [film(seed, 60, 60) for seed in range(1000, 1100)]
    images = [*alike, cropped(theirs[3], 0.015)]
    held_out(monkeypatch, {"a": pile_of(theirs, patient=[f"E{n}" for n in range(100)])})
    pile = pile_of(images, patient=[f"P{n}" for n in range(106)])
    verdict = run(pile, tmp_path, evaluation=("a",), cropped=False)
    limits = verdict.facts["evaluation_limits"]["a"]
    assert limits["hash_pairs"] == 106 * 100
    assert limits["correlation_pairs"] == 0
    assert verdict.facts["hash_bits"] < limits["hash_bits"]
    assert verdict.facts["dropped"]["evaluation_image"] == 1


def test_of_few_pairs_with_evaluation_the_limits_are_those_of_the_pile(
    films: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out(monkeypatch, {"a": pile_of(films[30:32], patient=["x", "y"])})
    pile = pile_of(films[:30], patient=[f"P{n}" for n in range(30)])
    limits = run(pile, tmp_path, evaluation=("a",)).facts["evaluation_limits"]["a"]
    assert (limits["hash_pairs"], limits["correlation_pairs"]) == (0, 0)
    monkeypatch.setattr(image_links, "CROSS_PAIRS", 60)
    limits = run(pile, tmp_path, evaluation=("a",)).facts["evaluation_limits"]["a"]
    assert limits["correlation_pairs"] == 60


def copies_by_loops(
    links: list[tuple[int, int, int, float]], ranks: Sequence[int], patients: Sequence[str], gone: set[int]
) -> set[int]:
    """Choose what goes as the module's words have it, link by link."""
    near: dict[int, set[int]] = {row: set() for row in range(len(ranks))}
    pixels = {frozenset((i, j)) for i, j, way, _ in links if way == 0}
    for i, j, _, _ in links:
        if i != j and not {i, j} & gone:
            near[i].add(j)
            near[j].add(i)
    stays: set[int] = set()
    dropped: set[int] = set()
    for row in sorted(near, key=lambda row: ranks[row]):
        if row not in dropped:
            stays.add(row)
            next_but_one = {
                other
                for through in near[row] - stays
                for other in near[through]
                if not patients[other] or patients[other] != patients[row] or frozenset((through, other)) in pixels
            }
            dropped |= (near[row] | next_but_one) - stays
    return dropped


@given(st.data())
def test_what_goes_is_what_a_loop_over_links_says(data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 9))
    row = st.integers(0, num - 1)
    drawn = data.draw(st.lists(st.tuples(row, row, st.integers(0, 3), st.floats(0, 1)), max_size=25))
    links = sorted(drawn, key=lambda link: link[2])
    patients = data.draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=num, max_size=num))
    ranks = data.draw(st.permutations(range(num)))
    gone = data.draw(st.sets(row, max_size=2))
    one, other, way, value = zip(*links, strict=True) if links else ((), (), (), ())
    numbers = (np.array(column, np.int64) for column in (one, other, way))
    every = Links(*numbers, np.array(value, np.float64))
    answers = copies_of(every, np.array(ranks), patients, frozenset(gone), Silent())
    assert set(answers) == copies_by_loops(links, ranks, patients, gone) - gone
    for other, (way, _) in answers.items():
        assert way in {WAYS[w] for i, j, w, _ in links if other in (i, j)}


@given(st.data())
def test_no_two_that_stay_are_linked_and_which_they_are_hangs_on_no_order(data: st.DataObject) -> None:
    num = data.draw(st.integers(2, 9))
    row = st.integers(0, num - 1)
    drawn = data.draw(st.lists(st.tuples(row, row, st.integers(0, 3)), max_size=20))
    patients = data.draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=num, max_size=num))
    ranks = np.array(data.draw(st.permutations(range(num))))
    order = np.array(data.draw(st.permutations(range(num))))  # the row that comes to each place
    place = np.argsort(order)

    def stay(one: Any, other: Any, ranks: Any, patients: list[str]) -> set[int]:
        ways = np.array([way for *_, way in drawn], np.int64)
        links = Links(np.array(one, np.int64), np.array(other, np.int64), ways, np.zeros(len(drawn)))
        return set(range(num)) - set(copies_of(links, ranks, patients, frozenset(), Silent()))

    one, other = ([link[k] for link in drawn] for k in (0, 1))
    rows = stay(one, other, ranks, patients)
    assert not any(i != j and {i, j} <= rows for i, j, _ in drawn)
    again = stay(place[one].tolist(), place[other].tolist(), ranks[order], [patients[n] for n in order])
    assert {int(order[n]) for n in again} == rows


def test_a_shuffled_pile_keeps_the_same_images(films: list[Pixels], tmp_path: Path) -> None:
    """Equal pixels of several patients, copies of copies, and two exposures of one patient, in four orders."""
    chain = [films[0]]
    for _ in range(4):
        chain.append((0.8 * chain[-1] + 0.2 * films[1]).astype(np.uint8))
    images = [
        *chain,
        *films[2:12],
        chain[1],
        chain[1],
        chain[3],
        resized_jpeg(films[2]),
        resized_jpeg(films[3]),
        films[3],
    ]
    num = len(images)
    patients = [f"P{n % 9}" for n in range(num)]
    patients[16:19] = ["P0", "", "Q"]
    keys, texts = [f"k{n:02}" for n in range(num)], ["x" * (n * 7 % 5) for n in range(num)]
    rng = np.random.default_rng(0)
    answers = []
    for order in (np.arange(num), *(rng.permutation(num) for _ in range(3))):
        columns = {
            name: [cells[n] for n in order] for name, cells in (("key", keys), ("patient", patients), ("text", texts))
        }
        verdict = run(pile_of([images[n] for n in order], **columns), tmp_path)
        assert verdict.value_M is not None
        answers.append({columns["key"][n]: str(verdict.value_M[n]) for n in np.flatnonzero(~verdict.kept_M)})
    assert 5 <= len(answers[0]) < num - 10
    assert answers == [answers[0]] * 4


def test_what_has_the_pixels_of_an_image_that_goes_goes_with_it_wherever_it_stands() -> None:
    """Rows 1 and 2 have the pixels of 0, and 3 links to 2: the middle of the star is not the one that goes."""
    links = Links(np.array([0, 0, 2]), np.array([1, 2, 3]), np.array([0, 0, 1]), np.array([0.0, 0.0, 9.0]))
    rows, values = image_links.spread(np.array([False, True, False, False, False]), links)
    assert dict(zip(rows.tolist(), values.tolist(), strict=True)) == {0: 0.0, 2: 0.0, 3: 9.0}


def test_links_of_an_image_are_those_of_all_with_its_pixels() -> None:
    links = Links(np.array([0, 0]), np.array([1, 2]), np.array([0, 1]), np.array([0.0, 9.0]))
    every = image_links._of_all_equal(links, np.array([0, 0, 2, 2]))
    rows = zip(every.one_K.tolist(), every.other_K.tolist(), every.way_K.tolist(), strict=True)
    assert set(rows) == {(0, 1, 0), (0, 2, 1), (0, 3, 1), (1, 2, 1), (1, 3, 1)}


def test_thousands_of_equal_images_link_to_the_one_that_stands_for_the_others() -> None:
    num = 2000
    links = Links(np.array([0]), np.array([num]), np.array([1]), np.array([9.0]))
    every = image_links._of_all_equal(links, np.repeat([0, num], num))
    rows = sorted(zip(every.one_K.tolist(), every.other_K.tolist(), strict=True))
    assert rows == sorted({*((n, num) for n in range(num)), *((0, num + n) for n in range(num))})
    assert set(every.way_K.tolist()) == {1}
    assert set(every.value_K.tolist()) == {9.0}


def test_many_images_that_are_all_alike_leave_one() -> None:
    num = 400
    one, other = np.triu_indices(num, 1)
    links = Links(one, other, np.ones(len(one), np.int64), np.full(len(one), 3.0))
    answers = copies_of(links, np.arange(num)[::-1], [f"P{n}" for n in range(num)], frozenset(), Silent())
    assert sorted(answers) == list(range(num - 1))


def test_the_patient_of_a_copy_of_an_image_of_evaluation_goes_with_all_images(
    films: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is linked to evaluation, the second to the first alone, and the third is of the second's patient."""
    direct = Links(np.array([0]), np.array([0]), np.array([0]), np.array([0.0]))
    monkeypatch.setattr(deduplication, "link_with", lambda *_: (direct, AlikeAcross(44, 0, 0.9, 0, {})))
    held_out(monkeypatch, {"a": pile_of(films[9:10], patient=["E"])})
    pile = pile_of([films[0], resized_jpeg(films[0]), films[2], films[3]], patient=["one", "two", "two", "three"])
    verdict = run(pile, tmp_path, evaluation=("a",))
    assert verdict.kept_M.tolist() == [False, False, False, True]
    assert (verdict.facts["dropped"]["evaluation_image"], verdict.facts["dropped"]["evaluation_patient"]) == (2, 1)


def test_registered_images_are_alike_whichever_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def back(one: Pixels, other: Pixels, pairs: Any) -> Registered:
        return Registered(pairs[0], pairs[1], np.array([0.9, 0.5], np.float32))

    monkeypatch.setattr(image_links, "register", back)
    numbers, small = np.arange(3), np.zeros((3, 8, 8), np.uint8)
    there = Registered(numbers, numbers + 1, np.array([0.95, 0.95, 0.2], np.float32))
    kept = image_links._both_ways(there, small, small, 0.8)
    assert (kept.one_K.tolist(), kept.other_K.tolist()) == ([0], [1])
