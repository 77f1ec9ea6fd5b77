"""One flipped bit in anything that is stored: noticed and computed again, or one sentence.

Each kind of stored file is written once. Then a bit of one of its files is flipped, and what reads
the store is run. Never may a result differ from the undisturbed one, and no error but ours may
come out. The fast test samples bits by a fixed seed, the slow one flips 300 in each kind.
"""

import json
import random
import shutil
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import torch

import thresher as th
from tests.jobs.conftest import JobKit, make_rows
from thresher.artifacts.folder import MANIFEST, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.artifacts.seal import seal_manifest
from thresher.cache.answer_cache import AnswerCache
from thresher.errors import ThresherError
from thresher.experiments.cells.cache import CellCache
from thresher.jobs.history import History
from thresher.jobs.inspection import list_runs
from thresher.jobs.snapshots.folder import JobFolder
from thresher.jobs.snapshots.read import read_pool
from thresher.jobs.snapshots.seen_ids import read_segments
from thresher.jobs.sources.scan import HashCache
from thresher.jobs.state import PreviousSnapshot
from thresher.subset.budget import parse_budget
from thresher.subset.subset import read_subset, read_subset_rows
from thresher.trainer.adapter import Adapter
from thresher.trainer.engine import checkpoint
from thresher.trainer.engine.checkpoint import History as TrainHistory
from thresher.trainer.runs import _read_done

N_FAST, N_SLOW = 24, 300
TEXTS = pl.Series([f"row number {number} of the store" for number in range(40)])


@dataclass
class Store:
    """Something stored: its folder, which files of it are hit, and what reads it.

    `read` returns what was read, or None for what is computed again; `may_refuse` tells whether one
    sentence is enough, as for a user's own folder, or whether the store has to heal itself.
    """

    folder: object
    read: object
    pattern: str = "**/*"
    may_refuse: bool = True


def feature_cache(folder):
    def read(folder):
        embedding = th.score([{"text": text} for text in TEXTS], "embedding", encoder="static").frame["embedding"]
        return embedding.to_numpy().tobytes()

    return Store(folder, read, "v1/**/*.safetensors", may_refuse=False)


def cells(folder):
    table = pl.DataFrame({"row_id": [f"{i:032x}" for i in range(30)], "loss": np.linspace(0, 1, 30)})

    def read(folder):
        outcome = CellCache(folder).load_or_run("key", lambda _: (table, {"steps": 3, "rows_learned": 30}))
        return outcome.outcomes.write_csv(), dict(outcome.facts)

    return Store(folder, read, may_refuse=False)


def answers(folder):
    def read(folder):
        store = AnswerCache(folder)
        stored = store.get([f"{i:032x}" for i in range(40)])
        for i in range(40):
            if f"{i:032x}" not in stored:
                store.put(f"{i:032x}", "model", {"text": f"answer {i} " * 10, "is_cut": False})
        try:
            return store.get([f"{i:032x}" for i in range(40)])
        finally:
            store.close()

    return Store(folder, read, "**/answers.sqlite", may_refuse=False)


def _train_a_little(seed=0):
    torch.manual_seed(seed)
    parameters = {"a": torch.nn.Parameter(torch.randn(6, 4)), "b": torch.nn.Parameter(torch.randn(8))}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def _step(parameters, optimizer):
    sum((value**2).sum() for value in parameters.values()).backward()
    optimizer.step()
    optimizer.zero_grad()


def checkpoints(folder):
    """Read is right where training on from whatever is restored gives the same weights."""
    parameters, optimizer = _train_a_little()
    for step in (1, 2, 3):
        _step(parameters, optimizer)
        losses = [{"step": number, "loss": 0.5} for number in range(step)]
        checkpoint.save(folder, parameters, optimizer, TrainHistory(step=step, losses=losses))

    def read(folder):
        parameters, optimizer = _train_a_little()
        history = checkpoint.restore(folder, parameters, optimizer)
        assert history.losses == [{"step": number, "loss": 0.5} for number in range(history.step)]
        assert history.best_step is None
        assert not history.is_stopped
        for _ in range(history.step, 5):
            _step(parameters, optimizer)
        return [value.detach().numpy().tobytes() for value in parameters.values()]

    return Store(folder, read, may_refuse=False)


def best_weights(folder):
    parameters, _ = _train_a_little()
    checkpoint.save_weights(folder / "best.safetensors", parameters)

    def read(folder):
        restored, _ = _train_a_little(seed=1)
        checkpoint.load_weights(folder / "best.safetensors", restored)
        return [value.detach().numpy().tobytes() for value in restored.values()]

    return Store(folder, read)


def _write_job(folder):
    kit = JobKit(folder)
    kit.run_first(output="shard_rows = 3")
    kit.add("b", make_rows(5, 2))
    kit.run()
    return kit


def snapshots(folder):
    _write_job(folder)

    def read(folder):
        state = PreviousSnapshot.read(JobFolder(folder / "out").latest())
        pool = read_pool(state.snapshot)
        known, problems = read_segments(folder / "out" / "seen", state.segments)
        rows = pool.table.to_pylist()
        return json.dumps([state.ledger, state.distributions, state.snapshot.manifest.content, rows], default=str), (
            None if problems else known.tolist()
        )

    return Store(folder, read, "out/snapshots/v000002/**/*")


def seen_ids(folder):
    store = snapshots(folder)
    return Store(folder, lambda folder: store.read(folder)[0], "out/seen/*")


def history(folder):
    _write_job(folder)

    def read(folder):
        entries = list_runs(folder / "out")
        number = History(folder / "out").start_run(started="2026", owner="me", parent=None)
        assert number >= 3
        first = [entry for entry in entries if entry.number < 3]
        return [(entry.number, entry.outcome, entry.version, json.dumps(entry.report)) for entry in first]

    return Store(folder, read, "out/history.sqlite")


def scan(folder):
    _write_job(folder)
    paths = sorted((folder / "src").iterdir())
    expected = [th.load(path).sources[0].sha256 for path in paths]
    marked = HashCache(folder / "out")
    assert [marked.hash_file(path)[1] for path in paths] == expected
    marked.mark_exhausted(expected, 2)
    marked.save()

    def read(folder):
        cache = HashCache(folder / "out")
        assert [cache.hash_file(path)[1] for path in paths] == expected
        return sorted(cache.list_exhausted({1, 2})) or None

    return Store(folder, read, "out/scan.json", may_refuse=False)


def subset(folder, suffix="jsonl"):
    rows = [{"text": f"text {i} of {i % 7}", "label": str(i % 3)} for i in range(40)]
    pool = folder.parent / f"pool.{suffix}"
    pl.DataFrame(rows).write_parquet(pool) if suffix == "parquet" else pl.DataFrame(rows).write_ndjson(pool)
    th.select(pool, "random", budget=10, out=folder)

    def read(folder):
        chosen = th.select(pool, "random", budget=10, out=folder)
        again = read_subset(folder, th.load(pool))
        kept = [sorted(row.items()) for row in read_subset_rows(folder).rows(np.arange(10))]
        assert th.load(folder).frame.equals(read_subset_rows(folder).frame)
        return kept, chosen.dropped.write_ndjson(), again.score_table().write_csv(), chosen.manifest.hash

    return Store(folder, read)


def subset_of_parquet(folder):
    return subset(folder, "parquet")


def table_of_features(folder):
    folder.mkdir()
    rows = [{"text": text} for text in TEXTS]

    def read(folder):
        return th.score(rows, "length", out=folder / "features.parquet").frame.write_csv()

    return Store(folder, read)


def saturation(folder):
    entry = {"enough": {"verdict": "enough", "high": 1234}, "points": [{"value": 0.5}]}
    folder.mkdir()
    (folder / "saturation.json").write_text(json.dumps({"methods": {"uniform": entry}, "is_higher_better": True}))
    content = {"format": FORMAT, "kind": "curve", "identity": "1" * 64}
    (folder / MANIFEST).write_bytes(Manifest(content).to_json())
    write_atomic(folder / MANIFEST, seal_manifest(folder))
    return Store(folder, lambda folder: str(parse_budget(f"saturation:{folder}", method="uniform")))


def finished_run(folder):
    from thresher.artifacts.seal import encode_record, hash_files, seal_record

    folder.mkdir()
    write_parquet(pl.DataFrame({"loss": np.linspace(0, 1, 30)}), folder / "predictions.parquet")
    record = seal_record(vars(TrainHistory(step=3, losses=[{"loss": 0.1}])), hash_files(folder))
    (folder / "done.json").write_bytes(encode_record(record))

    def read(folder):
        found, damage = _read_done(folder)
        assert (found is None) == (damage is not None)
        return None if found is None else (vars(found), pl.read_parquet(folder / "predictions.parquet").write_csv())

    return Store(folder, read, may_refuse=False)


def adapter(folder):
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"held_out": {"loss": 0.25}, "n_steps": 12}))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": "base"}))
    torch.manual_seed(0)
    weights = {"lora_A": torch.randn(4, 4)}
    from safetensors.torch import save_file

    from thresher.cache.fingerprint import fingerprint

    save_file(weights, folder / "adapter_model.safetensors")
    content = {"format": FORMAT, "kind": "adapter", "identity": "1" * 64, "run": {"seconds": 1.5}}
    (folder / MANIFEST).write_bytes(Manifest(content).to_json())
    write_atomic(folder / MANIFEST, seal_manifest(folder))
    names = ("adapter_config.json", "adapter_model.safetensors")

    def read(folder):
        known = Adapter.read(folder)
        return known.metrics, known.manifest.content, fingerprint([(n, folder / n) for n in names], recipe="1")

    return Store(folder, read)


KINDS = [
    feature_cache,
    cells,
    answers,
    checkpoints,
    best_weights,
    snapshots,
    seen_ids,
    history,
    scan,
    subset,
    subset_of_parquet,
    table_of_features,
    saturation,
    finished_run,
    adapter,
]


def flip_bits(kind, n_flips, tmp_path, monkeypatch):
    """Flip so many bits, one at a time, and compare what is read with what was stored."""
    folder, original = tmp_path / "store", tmp_path / "original"
    monkeypatch.setenv("THRESHER_CACHE", str(folder if kind is feature_cache else tmp_path / "cache"))
    store = kind(folder)
    expected = store.read(folder)
    assert expected is not None
    shutil.copytree(folder, original, symlinks=True)
    hit = (path for path in folder.glob(store.pattern) if path.is_file() and path.stat().st_size)
    files = sorted(path.relative_to(folder) for path in hit)
    rng = random.Random(kind.__name__)
    for _ in range(n_flips):
        shutil.rmtree(folder)
        shutil.copytree(original, folder, symlinks=True)
        name = rng.choice(files)
        content = bytearray((folder / name).read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << (bit % 8)
        (folder / name).write_bytes(content)
        where = f"{name}, bit {bit % 8} of byte {bit // 8}"
        result, refusal = read_or_refuse(store, where)
        assert refusal is None or (store.may_refuse and "\n" not in refusal), f"{where}: {refusal}"
        assert result is None or result == expected, where


def read_or_refuse(store, where):
    """Return what a store reads, or the sentence with which it refuses; any other error fails."""
    try:
        return store.read(store.folder), None
    except ThresherError as error:
        return None, str(error)
    except BaseException as error:
        raise AssertionError(f"{where}: {error!r}") from error


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_never_used(kind, tmp_path, monkeypatch):
    flip_bits(kind, N_FAST, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_flipped_bits_are_never_used(kind, tmp_path, monkeypatch):
    flip_bits(kind, N_SLOW, tmp_path, monkeypatch)
