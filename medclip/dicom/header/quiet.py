"""Keep reading libraries from talking to the terminal: what matters becomes a row."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Silence Python warnings and one logger for a while.

    Vendor files break their standards in a hundred harmless ways. The libraries warn of each, some with the value
    itself; damage that matters raises, or is recorded as a step.

    Args:
        logger_name: The library's logger, such as "pydicom".
    """

    def silent(record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger(logger_name)
    logger.addFilter(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(silent)
