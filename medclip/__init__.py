"""Medical image-text models: files become samples, embeddings, scores and reports.

The public names below load their module on first use (PEP 562), so `import medclip` imports none of the heavy
libraries. Not a medical device; the shipped weights are for non-commercial research.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medclip.version import __version__

if TYPE_CHECKING:
    from medclip.api.audit import audit
    from medclip.api.score import score
    from medclip.api.view import view
    from medclip.errors import MedclipError, Reason
    from medclip.files.scan import scan
    from medclip.inspecting.doctor import doctor
    from medclip.inspecting.open_study import open_study
    from medclip.models.interchange.hub import load_hub
    from medclip.models.interchange.import_export import export_model, import_model
    from medclip.models.packs.pack import list_packs, load_model, verify_pack
    from medclip.sample import Modality, Provenance, Sample, Study, View
    from medclip.settings import Settings
    from medclip.shards.reading.check_folder import check_shards
    from medclip.shards.reading.index_tars import index_shards
    from medclip.shards.writing.build import build_shards
    from medclip.shards.writing.captions import captions_from_labels
    from medclip.text.vocabulary.load import load_task, task_names
    from medclip.training.loop import pretrain


_PUBLIC = {
    "MedclipError": "medclip.errors",
    "Modality": "medclip.sample",
    "Provenance": "medclip.sample",
    "Reason": "medclip.errors",
    "Sample": "medclip.sample",
    "Settings": "medclip.settings",
    "Study": "medclip.sample",
    "View": "medclip.sample",
    "audit": "medclip.api.audit",
    "build_shards": "medclip.shards.writing.build",
    "captions_from_labels": "medclip.shards.writing.captions",
    "check_shards": "medclip.shards.reading.check_folder",
    "doctor": "medclip.inspecting.doctor",
    "export_model": "medclip.models.interchange.import_export",
    "import_model": "medclip.models.interchange.import_export",
    "index_shards": "medclip.shards.reading.index_tars",
    "list_packs": "medclip.models.packs.pack",
    "load_hub": "medclip.models.interchange.hub",
    "load_model": "medclip.models.packs.pack",
    "load_task": "medclip.text.vocabulary.load",
    "open_study": "medclip.inspecting.open_study",
    "pretrain": "medclip.training.loop",
    "scan": "medclip.files.scan",
    "score": "medclip.api.score",
    "task_names": "medclip.text.vocabulary.load",
    "verify_pack": "medclip.models.packs.pack",
    "view": "medclip.api.view",
}

__all__ = [
    "MedclipError",
    "Modality",
    "Provenance",
    "Reason",
    "Sample",
    "Settings",
    "Study",
    "View",
    "__version__",
    "audit",
    "build_shards",
    "captions_from_labels",
    "check_shards",
    "doctor",
    "export_model",
    "import_model",
    "index_shards",
    "list_packs",
    "load_hub",
    "load_model",
    "load_task",
    "open_study",
    "pretrain",
    "scan",
    "score",
    "task_names",
    "verify_pack",
    "view",
]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'medclip' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
