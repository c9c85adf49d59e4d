"""Medical image-text models: files become samples, embeddings, scores and reports.

The verbs do what the commands of the same name do, and return a result that shows itself. What is done to model packs,
image-text pairs, shards, slides, ECGs on paper and finished runs lies in the namespaces `models`, `pairs`, `shards`,
`slides`, `ecg` and `runs`.
Every name loads its module on first use, so `import medclip` imports none of the heavy libraries. Not a medical device;
the shipped weights are for non-commercial research.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names
from medclip.version import __version__

if TYPE_CHECKING:
    from medclip import ecg, models, pairs, runs, shards, slides
    from medclip.adaptation.finetune.result import FinetuneResult
    from medclip.adaptation.maps.learn import MapRun
    from medclip.adaptation.run import AdaptRun
    from medclip.api.adapt import adapt
    from medclip.api.audit import audit
    from medclip.api.captions import rank_captions
    from medclip.api.compare import compare
    from medclip.api.doctor import doctor
    from medclip.api.embed import embed
    from medclip.api.evaluate import evaluate
    from medclip.api.explain import explain
    from medclip.api.finetune import finetune
    from medclip.api.monitor import monitor
    from medclip.api.open_study import open_study
    from medclip.api.pathgen import pathgen
    from medclip.api.pretrain import pretrain
    from medclip.api.runs import retry
    from medclip.api.scan import scan
    from medclip.api.score import score
    from medclip.api.search import search
    from medclip.api.view import view
    from medclip.api.watch import watch
    from medclip.auditing.result import AuditResult
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.errors import MedclipError, Reason
    from medclip.evaluation.few_shot.comparison import Comparison
    from medclip.evaluation.zero_shot.suite_result import SuiteResult
    from medclip.explaining.explanation import Explained
    from medclip.files.scan import Scan
    from medclip.inspecting.doctor import Diagnosis
    from medclip.inspecting.draw_view import Viewed
    from medclip.inspecting.opened_study import OpenedStudy
    from medclip.monitoring.run import Monitored
    from medclip.pairs.sources.slides.pathgen import PathgenResult
    from medclip.retrieval.caption_ranking import CaptionRanking
    from medclip.retrieval.hits import SearchResult
    from medclip.runs.outputs.score_run import ScoreRun
    from medclip.sample import Modality, Provenance, Sample, Study, View
    from medclip.settings import Settings
    from medclip.training.result import PretrainResult


__all__ = [
    "AdaptRun",
    "AuditResult",
    "CaptionRanking",
    "Comparison",
    "Diagnosis",
    "Embeddings",
    "Explained",
    "FinetuneResult",
    "MapRun",
    "MedclipError",
    "Modality",
    "Monitored",
    "OpenedStudy",
    "PathgenResult",
    "PretrainResult",
    "Provenance",
    "Reason",
    "Sample",
    "Scan",
    "ScoreRun",
    "SearchResult",
    "Settings",
    "Study",
    "SuiteResult",
    "View",
    "Viewed",
    "__version__",
    "adapt",
    "audit",
    "compare",
    "doctor",
    "ecg",
    "embed",
    "evaluate",
    "explain",
    "finetune",
    "models",
    "monitor",
    "open_study",
    "pairs",
    "pathgen",
    "pretrain",
    "rank_captions",
    "retry",
    "runs",
    "scan",
    "score",
    "search",
    "shards",
    "slides",
    "view",
    "watch",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AdaptRun": "medclip.adaptation.run:AdaptRun",
        "MapRun": "medclip.adaptation.maps.learn:MapRun",
        "AuditResult": "medclip.auditing.result:AuditResult",
        "CaptionRanking": "medclip.retrieval.caption_ranking:CaptionRanking",
        "Comparison": "medclip.evaluation.few_shot.comparison:Comparison",
        "Diagnosis": "medclip.inspecting.doctor:Diagnosis",
        "Embeddings": "medclip.embeddings.open_embeddings:Embeddings",
        "Explained": "medclip.explaining.explanation:Explained",
        "FinetuneResult": "medclip.adaptation.finetune.result:FinetuneResult",
        "MedclipError": "medclip.errors:MedclipError",
        "Modality": "medclip.sample:Modality",
        "Monitored": "medclip.monitoring.run:Monitored",
        "OpenedStudy": "medclip.inspecting.opened_study:OpenedStudy",
        "PathgenResult": "medclip.pairs.sources.slides.pathgen:PathgenResult",
        "PretrainResult": "medclip.training.result:PretrainResult",
        "Provenance": "medclip.sample:Provenance",
        "Reason": "medclip.errors:Reason",
        "Sample": "medclip.sample:Sample",
        "Scan": "medclip.files.scan:Scan",
        "ScoreRun": "medclip.runs.outputs.score_run:ScoreRun",
        "SearchResult": "medclip.retrieval.hits:SearchResult",
        "Settings": "medclip.settings:Settings",
        "Study": "medclip.sample:Study",
        "SuiteResult": "medclip.evaluation.zero_shot.suite_result:SuiteResult",
        "View": "medclip.sample:View",
        "Viewed": "medclip.inspecting.draw_view:Viewed",
        "adapt": "medclip.api.adapt:adapt",
        "audit": "medclip.api.audit:audit",
        "compare": "medclip.api.compare:compare",
        "doctor": "medclip.api.doctor:doctor",
        "ecg": "medclip.ecg",
        "embed": "medclip.api.embed:embed",
        "evaluate": "medclip.api.evaluate:evaluate",
        "explain": "medclip.api.explain:explain",
        "finetune": "medclip.api.finetune:finetune",
        "models": "medclip.models",
        "monitor": "medclip.api.monitor:monitor",
        "open_study": "medclip.api.open_study:open_study",
        "pairs": "medclip.pairs",
        "pathgen": "medclip.api.pathgen:pathgen",
        "pretrain": "medclip.api.pretrain:pretrain",
        "rank_captions": "medclip.api.captions:rank_captions",
        "retry": "medclip.api.runs:retry",
        "runs": "medclip.runs",
        "scan": "medclip.api.scan:scan",
        "score": "medclip.api.score:score",
        "search": "medclip.api.search:search",
        "shards": "medclip.shards",
        "slides": "medclip.slides",
        "view": "medclip.api.view:view",
        "watch": "medclip.api.watch:watch",
    },
)
