"""A writer of known skill behind a server on loopback."""

import pytest

from tests.models.generation.stub_server import StubServer
from thresher.models.generation import http_client


@pytest.fixture
def stub(monkeypatch, tmp_path):
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    stub = StubServer()
    yield stub
    stub.stop()


@pytest.fixture
def model(stub):
    return {"model": f"{stub.url}#tiny", "encoder": "static"}
