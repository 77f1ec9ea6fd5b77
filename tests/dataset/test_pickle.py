import gzip
import json
import pickle

import pytest

from thresher.dataset import load


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", None])
def test_a_dataset_can_be_sent_to_another_process(suffix, tmp_path):
    rows = [{"prompt": f"question {number}", "completion": "yes"} for number in range(5)]
    source = rows
    if suffix is not None:
        source = tmp_path / f"pool{suffix}"
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        source.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    sent = pickle.loads(pickle.dumps(load(source)))  # noqa: S301 - our own bytes
    assert sent.rows([3, 0]) == [rows[3], rows[0]]
    assert sent.fingerprint == load(source).fingerprint
