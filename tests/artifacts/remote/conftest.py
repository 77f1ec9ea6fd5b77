import json

import pytest


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": f"row number {number}", "label": "ab"[number % 2]}) for number in range(20)]
    return "".join(line + "\n" for line in lines).encode()
