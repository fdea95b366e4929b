from pathlib import Path
from typing import Any

import pytest

from tests.grafana.boards import BOARDS, read


@pytest.fixture(params=BOARDS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture
def board(path: Path) -> dict[str, Any]:
    return read(path)
