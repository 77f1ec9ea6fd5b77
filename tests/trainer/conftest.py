"""What the tests of training share."""

import hashlib
import json

import pytest


@pytest.fixture(scope="session")
def hash_files():
    """Return a function from a folder to the hash of each file, without the manifest's `run`."""

    def compute(folder):
        hashes = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            if path.name == "manifest.json":
                data = json.dumps({key: value for key, value in json.loads(data).items() if key != "run"}).encode()
            hashes[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
        return hashes

    return compute
