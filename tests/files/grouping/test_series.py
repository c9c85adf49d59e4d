from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import Reason
from medclip.files.grouping.series import Slice, Stack, stacks
from tests.kits.series import SAGITTAL, piece


def _names(found: tuple[Stack, ...]) -> list[list[str]]:
    return [[item.name for item in stack.slices] for stack in found]


def _series(*heights: float) -> list[Slice]:
    return [piece(f"{number:03}", z) for number, z in enumerate(heights)]


@given(
    st.permutations(range(12)),
    st.sampled_from([(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), SAGITTAL, (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)]),
    st.floats(0.3, 10.0),
)
def test_any_order_of_files_gives_the_same_stack_ascending_along_the_normal(
    order: list[int], orientation: tuple[float, ...], spacing: float
) -> None:
    row, column = orientation[:3], orientation[3:]
    normal = (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )
    slices = [
        piece(
            f"{n:02}", image_position=tuple(5.0 + n * spacing * part for part in normal), image_orientation=orientation
        )
        for n in range(12)
    ]
    (stack,) = stacks([slices[index] for index in order])
    assert [item.name for item in stack.slices] == [f"{n:02}" for n in range(12)]
    assert (stack.problem, stack.notes) == (None, ())


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=14), st.data())
def test_every_slice_is_in_one_stack_whatever_the_series_holds(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    slices = [
        piece(f"{n:02}", 5.0 * z, echo_number=echo, sha256=f"{z}-{echo}-{copy}")
        for n, (z, echo, copy) in enumerate(rows)
    ]
    found = stacks(slices)
    assert sorted(item.name for stack in found for item in stack.slices) == [item.name for item in slices]
    assert stacks(data.draw(st.permutations(slices))) == found


def test_a_missing_slice_is_named_with_its_place() -> None:
    (stack,) = stacks(_series(0, 5, 10, 20, 25, 30))
    assert stack.problem is not None
    assert stack.problem.reason is Reason.UNEVEN_SLICES
    assert "slices are missing between 10.0 and 20.0 mm (usual distance 5.00 mm)" in stack.problem.message


def test_a_gap_is_a_note_where_it_may_be_filled() -> None:
    (stack,) = stacks(_series(0, 5, 10, 20), uneven="resample")
    assert stack.problem is None
    assert "missing between 10.0 and 20.0 mm" in stack.notes[0]


@pytest.mark.parametrize(("shift", "good"), [(0.05, True), (0.09, True), (0.3, False), (2.0, False)])
def test_distances_may_differ_a_little(shift: float, good: bool) -> None:
    (stack,) = stacks(_series(0, 5, 10 + shift, 15, 20))
    assert (stack.problem is None) is good
    if stack.problem is not None:
        assert "uneven between 5.0" in stack.problem.message


def test_copies_with_the_same_bytes_are_left_out_and_have_their_row() -> None:
    found = stacks([*_series(0, 5, 10), piece("zz", 5, sha256="001")])
    assert _names(found) == [["000", "001", "002"], ["zz"]]
    assert found[0].problem is None
    assert found[0].notes == ("1 file with the same bytes as a slice left out",)
    assert found[1].problem is not None
    assert found[1].problem.reason is Reason.COMPANION


def test_the_same_instances_stored_anew_are_read_apart_and_noted() -> None:
    once = [piece(f"{n}", 5 * n, instance_uid=f"1.2.{n}", lossy=True) for n in range(3)]
    again = [piece(f"{n}z", 5 * n, instance_uid=f"1.2.{n}") for n in range(3)]
    found = stacks([*once, *again])
    assert sorted(_names(found)) == [["0", "1", "2"], ["0z", "1z", "2z"]]
    assert all("stored more than once" in stack.notes[0] for stack in found)


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("echo_number", "echo"),
        ("echo_time_ms", "echo"),
        ("b_value", "b-value"),
        ("temporal_position", "time"),
        ("acquisition_number", "acquisition"),
    ],
)
def test_positions_that_repeat_are_told_apart_by_what_differs(field: str, word: str) -> None:
    slices = [piece(f"{value}-{z}", 5.0 * z, **{field: value}) for z in range(4) for value in (1, 2)]
    found = stacks(slices)
    assert _names(found) == [[f"{value}-{z}" for z in range(4)] for value in (1, 2)]
    assert all(stack.problem is None and f"told apart by {word}" in stack.notes[0] for stack in found)


def test_an_acquisition_number_of_each_slice_does_not_shatter_a_series() -> None:
    slices = [piece(f"{n}", 5.0 * n, acquisition_number=n) for n in range(5)]
    assert _names(stacks(slices)) == [["0", "1", "2", "3", "4"]]


def test_regular_repetition_without_a_difference_goes_by_instance_number() -> None:
    slices = [piece(f"{z}{time}", 5.0 * z, instance_number=10 * time + z) for z in range(3) for time in (1, 0)]
    assert _names(stacks(slices)) == [["00", "10", "20"], ["01", "11", "21"]]


def test_slices_at_one_place_that_nothing_tells_apart_are_read_one_by_one() -> None:
    found = stacks([piece(name, 6.6) for name in "abc"])
    assert _names(found) == [["a"], ["b"], ["c"]]
    assert all(stack.problem is None and "nothing in their headers" in stack.notes[0] for stack in found)


def test_irregular_repetition_is_refused_with_its_place() -> None:
    (stack,) = stacks([*_series(0, 5, 10), piece("x", 5)])
    assert stack.problem is not None
    assert "5.0 mm" in stack.problem.message
    assert len(stack.slices) == 4


def test_localizers_are_apart() -> None:
    scout = ("ORIGINAL", "PRIMARY", "LOCALIZER")
    found = stacks([*_series(0, 5, 10), piece("l1", 40, image_type=scout), piece("l2", 90, image_type=scout)])
    assert _names(found) == [["000", "001", "002"], ["l1"], ["l2"]]
    assert "localizer" in found[1].notes[0]


def test_slices_of_another_plane_or_size_are_apart() -> None:
    found = stacks(
        [*_series(0, 5, 10), piece("side", 0, image_orientation=SAGITTAL), piece("wide", 15, rows=128, columns=128)]
    )
    assert _names(found) == [["000", "001", "002"], ["side"], ["wide"]]
    assert "not parallel" in found[1].notes[0]
    assert "another size" in found[2].notes[0]


@pytest.mark.parametrize(("degrees", "apart"), [(0.2, False), (2.0, True)])
def test_parallel_means_within_half_a_degree(degrees: float, apart: bool) -> None:
    turn = math.radians(degrees)
    turned = (math.cos(turn), math.sin(turn), 0.0, -math.sin(turn), math.cos(turn), 0.0)
    found = stacks([*_series(0, 5, 10), piece("t", 15, image_orientation=turned)])
    assert (len(found) == 2) is apart


def test_a_tilt_is_measured_from_the_positions() -> None:
    slope = math.tan(math.radians(20))
    slices = [piece(f"{n}", image_position=(0.0, slope * 5 * n, 5.0 * n)) for n in range(5)]
    (stack,) = stacks(slices)
    assert stack.problem is None
    assert stack.notes == ("gantry tilt: slices are shifted by 20.0 degrees",)


def test_a_stated_tilt_of_a_single_slice_is_noted() -> None:
    (single,) = stacks([piece("a", 0, gantry_tilt_deg=-22.0)])
    assert "-22.0 degrees stated" in single.notes[0]


def test_positions_that_are_not_stated_are_a_problem_unless_there_is_one_slice() -> None:
    (alone,) = stacks([piece("a", None)])
    assert alone.problem is None
    found = stacks([piece("a", None), piece("b", None)])
    assert [stack.problem and stack.problem.reason for stack in found] == [Reason.UNEVEN_SLICES] * 2
    mixed = stacks([*_series(0, 5, 10), piece("x", None)])
    assert [stack.problem is None for stack in mixed] == [True, False]


def test_a_direction_that_is_none_counts_as_not_stated() -> None:
    found = stacks([piece(name, z, image_orientation=(0.0,) * 6) for name, z in (("a", 0), ("b", 5))])
    assert all(stack.problem is not None for stack in found)


@pytest.mark.parametrize(
    ("shift", "spacing", "good"), [(0.4, 1.0, True), (0.6, 1.0, False), (0.6, 2.0, True), (0.2, 0.2, False)]
)
def test_a_slice_beside_the_line_of_the_others_is_refused_in_either_mode(
    shift: float, spacing: float, good: bool
) -> None:
    slices = [
        piece(f"{n}", image_position=(shift if n == 3 else 0.0, 0.0, 5.0 * n), spacing_mm=(spacing, spacing))
        for n in range(8)
    ]
    for uneven in ("reject", "resample"):
        (stack,) = stacks(slices, uneven=uneven)
        assert (stack.problem is None) is good
        if stack.problem is not None:
            assert stack.problem.reason is Reason.UNEVEN_SLICES
            assert f"1 of 8 are shifted sideways, the one at 15.0 mm by {shift:.1f} mm" in stack.problem.message


@given(st.floats(-40, 40), st.floats(0.5, 8), st.lists(st.floats(-0.04, 0.04), min_size=12, max_size=12))
def test_a_constant_tilt_with_rounded_positions_is_no_jitter(
    degrees: float, distance: float, noise: list[float]
) -> None:
    slope = math.tan(math.radians(degrees))
    slices = [
        piece(f"{n:02}", image_position=(error, slope * distance * n, distance * n), spacing_mm=(0.4, 0.4))
        for n, error in enumerate(noise)
    ]
    (stack,) = stacks(slices)
    assert stack.problem is None
    if abs(degrees) > 5:
        assert any("tilt" in note for note in stack.notes)
