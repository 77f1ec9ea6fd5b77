"""Two rounds over parts: duplicates, independence from the files, objective, bound."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.features.container import Features
from thresher.selection.distributed.coverage import certify, compute_gains, compute_sample_values
from thresher.selection.distributed.partitions import nearest_centroid
from thresher.selectors.facility_location import FacilityLocation


def unit(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def value(x, picks):
    return float(np.maximum((x @ x[picks].T).max(axis=1), 0).sum())


def embedded(folder):
    from thresher.features import compute, make_context

    return compute(th.load(str(folder)), {"embedding"}, make_context(encoder="static"))["embedding"]


@pytest.fixture(scope="module")
def two_rounds(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two rounds")
    rows = kit.make_rows(600, seed=5)
    for number in range(0, 600, 9):
        rows[number] = dict(rows[(number * 7) % 50])  # many equal rows, in many files
    pool = kit.write_shards(folder / "pool", rows, 6)
    return pool, kit.run_in_process(str(pool), folder / "out", budget=60, partitions=5)


def test_the_objective_is_near_that_of_one_machine(two_rounds):
    pool, subset = two_rounds
    x = embedded(pool)
    here = th.select(str(pool), "facility-location", budget=60, encoder="static")
    assert value(x, subset.kept) >= 0.99 * value(x, here.kept)
    notes = subset.manifest.content["notes"]
    assert notes["objective_sampled_rows"] == 600
    assert notes["objective_stderr"] == 0.0, "all rows were looked at"
    assert notes["objective_mean"] * 600 == pytest.approx(value(x, subset.kept), rel=1e-5)
    assert subset.manifest.content["objective"] == pytest.approx(value(x, subset.kept), rel=1e-5)
    assert notes["objective_mean_bound"] * 600 >= value(x, here.kept)
    assert 0.63 < notes["certified_share"] <= 1.0


def test_equal_rows_are_picked_once(two_rounds):
    pool, subset = two_rounds
    assert len(np.unique(embedded(pool)[subset.kept], axis=0)) == 60


def test_every_dropped_row_has_the_pick_that_stands_for_it(two_rounds):
    pool, subset = two_rounds
    x, dropped = embedded(pool), subset.dropped
    ids = {row_id: i for i, row_id in enumerate(subset.scores.row_id)}
    assert set(dropped["reason"]) == {"covered"}
    by = np.array([ids[row_id] for row_id in dropped["covered_by"]])
    rows = np.array([ids[row_id] for row_id in dropped["row_id"]])
    assert set(by) <= set(subset.kept.tolist())
    assert len(dropped) == 540
    assert np.allclose(np.einsum("ij,ij->i", x[rows], x[by]), dropped["similarity"], atol=1e-5)
    nearest = (x[rows] @ x[subset.kept].T).max(axis=1)
    assert (dropped["similarity"].to_numpy() > nearest - 1e-5).mean() > 0.9, "nearly always the nearest of all picks"
    assert dropped["explanation"][0].startswith("kept row ")
    assert subset.scores.value[subset.kept].min() == -59.0


def test_picks_do_not_depend_on_how_the_rows_are_in_files(kit, two_rounds, tmp_path):
    pool, subset = two_rounds
    lines = [line for path in sorted(pool.iterdir()) for line in path.read_text().splitlines()]
    (tmp_path / "pool").mkdir()
    for number in range(2):
        (tmp_path / "pool" / f"{number}.jsonl").write_text("\n".join(lines[number::2][::-1]) + "\n")
    other = kit.run_in_process(str(tmp_path / "pool"), tmp_path / "out", budget=60, partitions=5)

    def texts(found):
        return sorted((row["prompt"], row["completion"]) for row in found.rows)

    assert texts(other) == texts(subset)


def test_rows_the_user_has_are_not_picked_again(kit, tmp_path):
    rows = kit.make_rows(120, seed=2)
    pool = kit.write_shards(tmp_path / "pool", rows, 3)
    kit.write_shards(tmp_path / "beside", rows[:40], 1)
    subset = kit.run_in_process(str(pool), tmp_path / "out", budget=20, partitions=3, existing=str(tmp_path / "beside"))
    assert not set(subset.kept.tolist()) & set(range(40))
    assert subset.manifest.content["counts"]["dropped_by_reason"]["covered-by-existing"] >= 40


def test_partitions_are_part_of_the_identity(kit, two_rounds, tmp_path):
    pool, subset = two_rounds
    other = kit.run_in_process(str(pool), tmp_path / "out", budget=60, partitions=4)
    assert other.manifest.identity != subset.manifest.identity
    assert other.manifest.content["partitioning"] == {"n_parts": 4, "oversampling": 2.0}


def test_a_weight_counts_as_so_many_equal_rows():
    x = unit(30, 6, 1)
    weight = np.random.default_rng(2).integers(1, 5, 30)
    repeated = np.repeat(np.arange(30), weight)

    def picked(arrays, n):
        features = Features(row_id=pl.Series([f"{i:03d}" for i in range(n)]), arrays=arrays)
        return FacilityLocation().score(features, n_ranked=8, rng=np.random.default_rng(0))

    once = picked({"embedding": x, "weight": weight}, 30)
    often = picked({"embedding": x[repeated]}, len(repeated))
    assert once.ranking()[:8].tolist() == repeated[often.ranking()[:8]].tolist()
    assert once.objective == pytest.approx(often.objective)


def test_equal_rows_go_to_one_centroid_wherever_they_stand():
    centroid = unit(7, 16, 3)
    halfway = centroid[2] + centroid[5]  # as near to the one as to the other
    x = np.concatenate([unit(301, 16, 4), np.tile(halfway, (50, 1)), unit(13, 16, 5), np.tile(halfway, (7, 1))])
    found = nearest_centroid(x, centroid)
    assert len(set(found[301:351]) | set(found[-7:])) == 1
    exact = x.astype(np.float64) @ centroid.T.astype(np.float64)
    assert np.array_equal(found[:301], exact[:301].argmax(axis=1))


def test_rows_that_are_as_near_to_all_centroids_take_little_memory():
    tracemalloc.start()
    found = nearest_centroid(np.zeros((1000, 64), np.float32), unit(200, 64, 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.any()
    assert peak < 120e6, "200,000 pairs of float64 rows take 200 MB"


def test_no_set_of_rows_is_better_than_the_bound():
    x = unit(12, 5, 6)
    for k, picks in ((1, [3]), (2, [0, 1]), (3, [11, 2, 5])):
        covered = compute_sample_values(x, x[picks], None)
        gains = compute_gains(x, x, covered)
        certificate = certify(covered, -np.sort(-gains)[:k], 12)
        best = max(value(x, list(some)) for some in itertools.combinations(range(12), k))
        assert certificate.value * 12 == pytest.approx(value(x, picks), rel=1e-5)
        assert certificate.bound * 12 >= best * (1 - 1e-6)
        assert 0 < certificate.share <= 1


def test_the_estimate_is_within_its_error_most_of_the_time():
    x, picks = unit(2000, 8, 7), list(range(40))
    truth, hits = value(x, picks) / 2000, 0
    for seed in range(40):
        sample = np.random.default_rng(seed).choice(2000, 200, replace=False)
        found = certify(compute_sample_values(x[sample], x[picks], None), np.zeros(1), 2000)
        hits += abs(found.value - truth) < 2 * found.stderr
    assert hits >= 35
