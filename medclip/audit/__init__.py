"""Whether a model works for every patient group, and how sure that is.

The package and the verb have one name: `medclip.audit(scores, labels, by=["sex"])` calls
`medclip.reports.audited.audit`, and `medclip.audit.gaps` is a module of this package.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """This package, which can also be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Audit a model; see `medclip.reports.audited.audit`."""
        from importlib import import_module

        return import_module("medclip.reports.audited").audit(*args, **kwargs)


sys.modules[__name__].__class__ = _Verb
