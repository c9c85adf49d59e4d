"""A server of DICOMweb in memory, for tests of what is asked of it and what becomes of its answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import Instance
from medclip.files.stores import RemotePath

IMAGE, REPORT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.88.33"


def part(uid: str, size: int = 100) -> bytes:
    """Return bytes that have a UID where a DICOM file has it, and nothing else of one."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return bytes(128) + b"DICM" + b"\x02\x00\x03\x00UI" + len(value).to_bytes(2, "little") + value + bytes(size)


@dataclass
class FakePacs:
    """What it has, and how often it was asked."""

    content: dict[str, dict[str, tuple[str, bytes]]]
    """Study -> object -> SOP class and bytes."""
    place: RemotePath = field(default_factory=lambda: RemotePath("http://127.0.0.1:1/dicom-web"))
    is_open: bool = False
    says_numbers: bool = True
    modalities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Study -> DICOM modalities."""
    is_closed: bool = False
    lacks: set[str] = field(default_factory=set)
    """Objects that are listed and not sent."""
    stop: threading.Event = field(default_factory=threading.Event)
    asked: Counter[str] = field(default_factory=Counter)
    before_reading: Callable[[str], None] = lambda _: None

    def studies(self, query: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
        """List the studies, one of them twice."""
        for uid in [*self.content, *list(self.content)[:1]]:
            yield uid, len(self.content[uid]) if self.says_numbers else None

    def studies_with_modalities(self, query: Mapping[str, str]) -> Iterator[tuple[str, int | None, tuple[str, ...]]]:
        """List the studies, one of them twice, with `modalities` of each."""
        for uid, number in self.studies(query):
            yield uid, number, self.modalities.get(uid, ())

    def instances(self, study_uid: str, expected: int | None = None) -> list[Instance]:
        """List the objects of a study."""
        self.asked[f"list {study_uid}"] += 1
        return [Instance(uid, "1", sop_class) for uid, (sop_class, _) in self.content[study_uid].items()]

    def read_study(self, study_uid: str, take: Callable[[bytes], None]) -> int:
        """Send a study."""
        self.asked[f"read {study_uid}"] += 1
        self.before_reading(study_uid)
        sent = [data for uid, (_, data) in self.content[study_uid].items() if uid not in self.lacks]
        for data in sent:
            take(data)
        return len(sent)

    def read_instance(self, study_uid: str, instance: Instance) -> bytes:
        """Send one object."""
        self.asked[f"read one of {study_uid}"] += 1
        if instance.uid in self.lacks:
            raise MedclipError(Reason.MISSING_FILE, "the server has nothing here.")
        return self.content[study_uid][instance.uid][1]

    def close(self) -> None:
        """Take note."""
        self.is_closed = True

    def headers(self, study_uid: str) -> list[dict[str, Any]]:
        """Send no headers."""
        return []
