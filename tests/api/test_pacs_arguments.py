"""A call over a PACS that cannot be carried out is refused before a server is asked or a folder is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.errors import MedclipError, Reason

NOWHERE = "dicomweb://127.0.0.1:1/dicom-web"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"query": ""}, "--query"),
        ({"query": "Modalty=CR"}, "'Modality'"),
        ({"spool": "3"}, "the spool is a size"),
        ({"table": "a.csv"}, "--table"),
        ({"hash_paths": True}, "--hash-paths"),
        ({"explain": "top"}, "heat maps"),
        ({"results_as": "sc"}, "heat maps"),
        ({"engine": "ray"}, "--engine"),
        ({"shard": "1/2"}, "--shard"),
        ({"store_to": "dicomwebs://user:word@host/x"}, "holds a user"),
        ({"store_to": NOWHERE, "results_as": "fhir-r5"}, "takes DICOM"),
    ],
)
def test_a_slip_is_said_at_once_and_nothing_is_written(
    tmp_path: Path, pack: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MedclipError) as refused:
        score(NOWHERE, tmp_path / "out", **{"query": "Modality=CR", "model": pack, **options})
    assert refused.value.reason is Reason.WRONG_USE
    assert sentence in f"{refused.value} {refused.value.hint}"
    assert not (tmp_path / "out").exists()


def test_a_query_without_a_pacs_is_refused(tmp_path: Path, studies: Path, pack: Path) -> None:
    with pytest.raises(MedclipError) as refused:
        score(studies, tmp_path / "out", query="Modality=CR", model=pack)
    assert "no PACS" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"query": ""}, "--query"),
        ({"spool": "3"}, "the spool is a size"),
        ({"table": "a.csv"}, "--table"),
        ({"hash_paths": True}, "--hash-paths"),
        ({"engine": "ray"}, "--engine"),
        ({"shard": "1/2"}, "--shard"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_embedding_a_pacs_is_refused_what_scoring_it_is(
    tmp_path: Path, pack: Path, options: dict[str, Any], sentence: str, dry_run: bool
) -> None:
    with pytest.raises(MedclipError) as refused:
        embed(NOWHERE, tmp_path / "out", **{"query": "Modality=CR", "model": pack, "dry_run": dry_run, **options})
    assert refused.value.reason is Reason.WRONG_USE
    assert sentence in f"{refused.value} {refused.value.hint}"
    assert not (tmp_path / "out").exists()
