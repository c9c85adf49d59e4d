"""Slides on slow storage are copied to a quick disk first: the next one while one is worked on.

A copy is hashed as it is written; where its hash is not the one that inspection found, the slide has changed, and it
is refused as any that does. Slides that have companions in a folder beside them (MIRAX, Hamamatsu VMS) are read where
they are: a copy of one file would be no slide.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from medclip.adapters.base import Source
from medclip.files.output import check_place, new_file
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import CHANGED
from medclip.sample import NO_STAMP
from medclip.slides.stages.reading import SeenSlide, see_slide

_WITH_COMPANIONS = (".mrxs", ".vms", ".vmu", ".ini", ".xml")
_PIECE_BYTES = 8 << 20


class Staging:
    """Copies of slides on a quick disk.

    Args:
        folder: Folder of the copies: one that is there, and of which only what is put there is removed.

    Raises:
        MedclipError: As `medclip.files.output.check_place`.
    """

    def __init__(self, folder: Path) -> None:
        check_place(folder)
        self._folder = folder / "medclip-staged"
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="medclip-staging")

    def see(self, key: str, source: Source, pool: ReadingPool, arguments: tuple[Any, ...]) -> Future[SeenSlide]:
        """Copy a slide, and have its copy opened in a reading process.

        Args:
            key: Key of the slide.
            source: Files of the slide.
            pool: Reading processes.
            arguments: Arguments of `see_slide`, for the files where they are.
        """

        def work() -> SeenSlide:
            staged = self._copy(key, source)
            return pool.submit(see_slide, staged, *arguments[1:], urgent=True).result()

        return self._copier.submit(work)

    def remove(self, key: str) -> None:
        """Remove the copy of a slide."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def close(self) -> None:
        """Remove all copies."""
        self._copier.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, key: str, source: Source) -> Source:
        if any(path.suffix.lower() in _WITH_COMPANIONS for path in source.paths):
            return source
        target = self._folder / key
        copies = []
        for number, (path, facts) in enumerate(zip(source.paths, source.facts, strict=True)):
            copy = target / f"{number}{path.suffix}"
            digest = hashlib.sha256()
            try:
                original = path.open("rb")
            except OSError:
                raise CHANGED.error(path) from None
            with original, new_file(copy) as draft, draft.open("wb") as written:
                while piece := original.read(_PIECE_BYTES):
                    digest.update(piece)
                    written.write(piece)
            if facts.sha256 and digest.hexdigest() != facts.sha256:
                raise CHANGED.error(path)
            copies.append(copy)
        facts = tuple(replace(known, stamp=NO_STAMP) for known in source.facts)
        return replace(source, paths=tuple(copies), facts=facts)
