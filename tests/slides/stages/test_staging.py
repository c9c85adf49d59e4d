"""Copies of slides on a quick disk are the slides that were inspected, and nothing of them stays."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from medclip.adapters.base import Source, single
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.settings import Settings
from medclip.slides.stages.reading import Staging
from tests.kits.slides import draw_section, write_pyramid


class Pool:
    """Answers with the source that it is to open."""

    def submit(self, function: Callable[..., Any], source: Source, *rest: Any, urgent: bool = False) -> Future[Any]:
        answer: Future[Any] = Future()
        answer.set_result(source)
        return answer


def test_a_copy_holds_the_bytes_of_its_slide_until_it_is_removed(tmp_path: Path):
    path = write_pyramid(tmp_path / "a.tiff", draw_section(600, 600))
    (tmp_path / "quick").mkdir()
    staging = Staging(tmp_path / "quick")
    source = single(path, inspect_file(path, Settings()))
    staged: Any = staging.see("k", source, Pool(), (source,)).result()  # pyright: ignore[reportArgumentType]
    assert staged.path != path
    assert staged.path.read_bytes() == path.read_bytes()
    staging.remove("k")
    assert not staged.path.exists()
    staging.close()
    assert list((tmp_path / "quick").iterdir()) == []


def test_a_slide_that_is_another_one_since_it_was_inspected_is_not_copied_as_if_it_were_the_same(tmp_path: Path):
    path = write_pyramid(tmp_path / "a.tiff", draw_section(600, 600))
    source = single(path, inspect_file(path, Settings()))
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    (tmp_path / "quick").mkdir()
    staging = Staging(tmp_path / "quick")
    with pytest.raises(MedclipError) as caught:
        staging.see("k", source, Pool(), (source,)).result()  # pyright: ignore[reportArgumentType]
    assert caught.value.reason is Reason.CHANGED
    path.unlink()
    with pytest.raises(MedclipError) as caught:
        staging.see("k", source, Pool(), (source,)).result()  # pyright: ignore[reportArgumentType]
    assert caught.value.reason is Reason.CHANGED
    staging.close()
