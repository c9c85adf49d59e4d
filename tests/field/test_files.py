"""Every real file ends in one place: a sample, or one reason. What it must be is the manifest's to say."""

from __future__ import annotations

from collections import Counter

import pytest

from medclip.adapters.base import single
from medclip.adapters.registry import read_unit
from medclip.dicom.pixels.decoded import MIN_SIDE
from medclip.errors import MedclipError, Problem, Reason, Status
from medclip.files.recognise.sniff import Format
from medclip.sample import Kind, Sample
from tests.field.conftest import SETTINGS, Field

pytestmark = [pytest.mark.shared, pytest.mark.field]


def outcome(field: Field, name: str, *, alone: bool = False) -> tuple[Sample | None, Problem | None]:
    """Read the unit of a file: a sample or a problem, and nothing else. A slice of a refused series is read alone."""
    source, modality = field.source(name)
    if alone:
        source = single(field.refs[name].path, field.facts[name])
    try:
        return read_unit(source, modality, SETTINGS), None
    except MedclipError as error:
        return None, error.problem()


def test_every_file_of_the_manifest_is_found_with_its_bytes(field: Field) -> None:
    wrong = [name for name, row in field.rows.items() if field.facts[name].sha256 != row["sha256"]]
    assert wrong == []


def test_every_file_has_a_problem_or_is_in_exactly_one_unit(field: Field) -> None:
    seen = Counter(ref.name for _, unit in field.units for ref in unit.files)
    for name, facts in field.facts.items():
        expected = 0 if facts.problem is not None or field.refs[name].problem is not None else 1
        assert seen[name] == expected, name


def test_what_holds_no_image_is_skipped_and_never_a_failure(field: Field) -> None:
    for name, row in field.of("no_image", "companion"):
        problem = field.problem(name)
        if row["status"] == "companion" and problem is None:
            _, unit = field.unit_of[name]  # signals are read with their header; others are files of their own
            assert unit.kind is Kind.SIGNAL, name
            continue
        if problem is None:
            _, problem = outcome(field, name)
        assert problem is not None, name
        # Two exceptions: a file that did hold pixels and was cut is a failure, whatever is left of it; and so is one
        # whose name promises an image that its bytes do not hold.
        nameless = field.facts[name].format is Format.UNKNOWN and problem.reason is Reason.CORRUPT
        assert problem.status is Status.SKIPPED or problem.reason is Reason.TRUNCATED or nameless, (name, problem)


def test_maps_over_other_images_are_not_images(field: Field) -> None:
    maps = [name for name, row in field.rows.items() if row["modality"] in ("SEG", "RTDOSE")]
    for name in maps:
        problem = field.problem(name)
        assert problem is not None, name
        assert problem.status is Status.SKIPPED or field.rows[name]["status"] in ("unreadable", "either"), name


def test_what_cannot_be_read_fails_with_one_reason(field: Field) -> None:
    for name, _ in field.of("unreadable"):
        problem = field.problem(name)
        if problem is None:
            _, problem = outcome(field, name)
        assert problem is not None, name
        # A format that medclip says it does not read is skipped, whatever is in it, and so is the same instance of a
        # study once more: nobody looks whether its pixels are all there.
        assert problem.status is Status.FAILED or problem.reason in (Reason.NOT_SUPPORTED_YET, Reason.DUPLICATE), name


def test_what_may_be_read_or_refused_does_either_cleanly(field: Field) -> None:
    for name, _ in field.of("either", "unreadable_region"):
        problem = field.problem(name)
        if problem is None:
            _, problem = outcome(field, name)
        assert problem is None or problem.message, name
        if field.rows[name]["status"] == "unreadable_region":
            assert problem is not None, name
            assert problem.status is Status.FAILED, name


@pytest.mark.slow
def test_every_image_becomes_a_sample_through_its_adapter(field: Field) -> None:
    done: set[int] = set()
    for name, row in field.of("image"):
        problem = field.problem(name)
        if problem is not None and problem.reason is Reason.COMPANION:
            continue  # the same bytes as another slice
        alone = problem is not None and problem.reason in (Reason.UNEVEN_SLICES, Reason.DUPLICATE)
        assert problem is None or alone, (name, problem)
        _, unit = field.unit_of[name]
        if id(unit) in done and not alone:
            continue
        done.add(id(unit))
        small = min(int(row["rows"] or MIN_SIDE), int(row["cols"] or MIN_SIDE)) < MIN_SIDE
        expected = {Reason.TOO_SMALL} if small else set()
        expected |= {Reason.CONSTANT_IMAGE} if row["stored_min"] and row["stored_min"] == row["stored_max"] else set()
        sample, problem = outcome(field, name, alone=alone)
        if problem is not None:
            assert problem.reason in expected, (name, problem)
            continue
        assert sample.views, name
        for view in sample.views:
            assert view.pixels.ndim == 3, name
            assert view.pixels.shape[2] in (1, 3), name


def test_burned_in_text_is_flagged_as_the_header_says(field: Field) -> None:
    said = {"YES": True, "NO": False}
    for name, row in field.rows.items():
        header = field.facts[name].header
        if row["burned_in"] and header is not None:
            assert header.burned_in is said.get(row["burned_in"]), name
