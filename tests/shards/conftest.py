from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.shards import write_films


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("images"))
