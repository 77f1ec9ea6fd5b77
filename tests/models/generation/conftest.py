"""The stub server of OpenAI's protocol, for the tests of generation."""

import pytest

from tests.models.generation.stub_server import StubServer
from thresher.models.generation import http_client


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("THRESHER_API_KEY", raising=False)
    stub = StubServer()
    yield stub
    stub.stop()
