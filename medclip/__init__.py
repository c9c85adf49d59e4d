"""Medical image-text models: files become samples, embeddings, scores and reports.

The public names below load their module on first use (PEP 562), so `import medclip` imports none of the heavy
libraries. Not a medical device; the shipped weights are for non-commercial research.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medclip import audit
    from medclip.errors import MedclipError, Reason
    from medclip.files.scan import scan
    from medclip.models.hub import load_hub
    from medclip.models.interchange import export_model, import_model
    from medclip.models.packs import list_packs, load_model, verify_pack
    from medclip.reports.score import score
    from medclip.reports.view import view
    from medclip.sample import Modality, Provenance, Sample, Study, View
    from medclip.scoring.doctor import doctor
    from medclip.scoring.open_study import open_study
    from medclip.settings import Settings
    from medclip.shards.build import build_shards
    from medclip.shards.captions import captions_from_labels
    from medclip.shards.check import check_shards
    from medclip.shards.index import index_shards
    from medclip.text.vocabularies import load_task, task_names
    from medclip.training.loop import pretrain

__version__ = "0.1.0"

_PUBLIC = {
    "MedclipError": "medclip.errors",
    "Modality": "medclip.sample",
    "Provenance": "medclip.sample",
    "Reason": "medclip.errors",
    "Sample": "medclip.sample",
    "Settings": "medclip.settings",
    "Study": "medclip.sample",
    "View": "medclip.sample",
    "audit": "medclip.audit",  # the package, which can be called
    "build_shards": "medclip.shards.build",
    "captions_from_labels": "medclip.shards.captions",
    "check_shards": "medclip.shards.check",
    "doctor": "medclip.scoring.doctor",
    "export_model": "medclip.models.interchange",
    "import_model": "medclip.models.interchange",
    "index_shards": "medclip.shards.index",
    "list_packs": "medclip.models.packs",
    "load_hub": "medclip.models.hub",
    "load_model": "medclip.models.packs",
    "load_task": "medclip.text.vocabularies",
    "open_study": "medclip.scoring.open_study",
    "pretrain": "medclip.training.loop",
    "scan": "medclip.files.scan",
    "score": "medclip.reports.score",
    "task_names": "medclip.text.vocabularies",
    "verify_pack": "medclip.models.packs",
    "view": "medclip.reports.view",
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
    found = import_module(module)
    value = found if module == f"medclip.{name}" else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
