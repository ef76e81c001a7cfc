"""What the contract tests share: one warm zygote, one fake gateway a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runner import FakeGateway, fake_gateway, zygote


@pytest.fixture(scope="session")
def langgraph_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a running zygote."""
    with zygote(tmp_path_factory.mktemp("z")) as path:
        yield path


@pytest.fixture
def upstream() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with fake_gateway() as server:
        yield server
