"""The stages in this process: the same picks, ids, tables and manifest as one machine gives."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, OutputError
from thresher.selection.distributed import InProcess, select_distributed, shards
from thresher.selection.distributed.engine import run_stage
from thresher.selection.distributed.stage import check_version, load_record, run_shard
from thresher.subset.subset import open_subset, read_subset, read_subset_rows


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("facility-location", {"budget": 40}),
        ("facility-location", {"budget": "10%", "existing": "beside"}),
        ("random", {"budget": 25}),
        ("length", {"budget": "900tok"}),
        ("length", {"budget": "score>18"}),
        ("random", {"budget": 30, "quota": "kind=balanced"}),
        ("random", {"budget": 30, "quota": "source"}),
        ("k-center", {"budget": 12, "embedding_dtype": "float16"}),
    ],
)
def test_picks_scores_tables_and_manifest_are_those_of_one_machine(kit, pool_folder, tmp_path, method, given):
    if "existing" in given:
        kit.write_shards(tmp_path / "beside", kit.make_rows(9, seed=3), 1)
        given = {**given, "existing": str(tmp_path / "beside")}
    here = th.select(str(pool_folder), method, encoder="static", out=tmp_path / "here", **given)
    there = kit.run_in_process(str(pool_folder), tmp_path / "there", method, **given)
    kit.assert_same(here, there)
    assert not list(tmp_path.glob(".*")), "the files between the stages are gone"


def test_scores_of_a_language_model_and_their_reasons_are_those_of_one_machine(kit, pool_folder, tmp_path, tiny_llama):
    files = sorted(pool_folder.iterdir())[:2]
    given = {"budget": 8, "model": str(tiny_llama), "max_length": 60}
    here = th.select(files, "perplexity", **given)
    there = kit.run_in_process(files, tmp_path / "there", "perplexity", encoder=None, **given)
    assert kit.read_facts(there)["feature_notes"] == kit.read_facts(here)["feature_notes"]
    assert kit.read_facts(here)["counts"]["excluded_by_reason"], "some rows have a reason instead of a value"
    assert kit.read_facts(there)["counts"] == kit.read_facts(here)["counts"]
    assert np.array_equal(there.kept, here.kept)
    assert np.allclose(there.scores.value, here.scores.value, atol=1e-5)


def test_features_that_compare_rows_are_computed_of_all_rows_at_once(kit, tmp_path, color_rows):
    pytest.importorskip("sklearn")
    folder = kit.write_shards(tmp_path / "pool", color_rows, 3)
    here = th.select(str(folder), "confidence", budget=9, encoder="static", out=tmp_path / "here")
    kit.assert_same(here, kit.run_in_process(str(folder), tmp_path / "there", "confidence", budget=9))


@pytest.mark.parametrize("n_labels", [1, 3, 80])
def test_auto_looks_at_the_labels_of_all_files(kit, tmp_path, n_labels):
    pytest.importorskip("sklearn")
    rows = [{"text": row["prompt"], "label": f"label {i % n_labels}"} for i, row in enumerate(kit.make_rows(90))]
    folder = kit.write_shards(tmp_path / "pool", rows, 3)
    here = th.select(str(folder), budget=9, encoder="static", out=tmp_path / "here")
    kit.assert_same(here, kit.run_in_process(str(folder), tmp_path / "there", "auto", budget=9))
    assert here.manifest.content["settings"]["judge_by"] == {1: "one-label", 3: "labels", 80: "lone-labels"}[n_labels]


def test_a_column_that_one_file_lacks_is_empty_there(kit, tmp_path):
    rows = [{"prompt": f"p {i}", "completion": f"c {i}", **({"kind": "ab"[i % 2]} if i < 9 else {})} for i in range(20)]
    folder = kit.write_shards(tmp_path / "pool", rows, 3)
    here = th.select(str(folder), "random", budget=9, quota="kind=balanced", out=tmp_path / "here")
    kit.assert_same(
        here,
        kit.run_in_process(str(folder), tmp_path / "there", "random", budget=9, quota="kind=balanced", encoder=None),
    )


def test_an_id_that_another_file_has_used_is_set_aside_as_on_one_machine(kit, tmp_path):
    rows = [{"name": f"r{i % 17}", "prompt": f"p {i}", "completion": f"c {i}"} for i in range(20)]
    folder = kit.write_shards(tmp_path / "pool", rows, 3)
    here = th.select(th.load(folder, id_column="name"), "random", budget=5, out=tmp_path / "here")
    there = kit.run_in_process(shards(folder, id_column="name"), tmp_path / "there", "random", budget=5, encoder=None)
    assert kit.read_facts(there) == kit.read_facts(here)
    assert there.scores.row_id.equals(here.scores.row_id)
    aside = [line for path in sorted((tmp_path / "there").glob("rejected-*")) for line in path.read_text().splitlines()]
    assert sorted(aside) == sorted((tmp_path / "here" / "rejected.jsonl").read_text().splitlines())


def test_the_folder_is_read_as_any_other(kit, pool_folder, tmp_path):
    subset = kit.run_in_process(str(pool_folder), tmp_path / "out")
    pool = th.load(str(pool_folder))
    assert th.load(str(tmp_path / "out")).frame["row_id"].to_list() == subset.dataset.frame["row_id"].to_list()
    assert read_subset_rows(tmp_path / "out").rows([0, 39]) == pool.rows(subset.kept[[0, 39]])
    assert read_subset(tmp_path / "out", pool).kept.tolist() == subset.kept.tolist()
    assert open_subset(tmp_path / "out").pool.fingerprint == pool.fingerprint
    assert len(subset) == 40
    here = th.select(str(pool_folder), "facility-location", budget=40, encoder="static", out=tmp_path / "out")
    assert here.manifest.content == subset.manifest.content, "the other engine finds it done"
    lines = {line for path in pool_folder.iterdir() for line in path.read_text().splitlines()}
    for path in (tmp_path / "out").glob("subset-*"):
        assert set(path.read_text().splitlines()) <= lines, "rows are copied byte for byte"


def test_the_report_of_the_folder_can_be_made(kit, pool_folder, tmp_path):
    kit.run_in_process(str(pool_folder), tmp_path / "out", "random", budget=9)
    assert "Rejected rows" in th.report(tmp_path / "out").read_text()


def test_a_table_stays_a_table(kit, tmp_path):
    (tmp_path / "pool").mkdir()
    for number in range(3):
        pl.DataFrame(kit.make_rows(12, seed=number)).write_parquet(tmp_path / "pool" / f"{number}.parquet")
    subset = kit.run_in_process(str(tmp_path / "pool"), tmp_path / "out", "random", budget=6)
    found = pl.concat([pl.read_parquet(path) for path in sorted((tmp_path / "out").glob("subset-*.parquet"))])
    assert found.to_dicts() == subset.rows


class Killed(InProcess):
    """Ends after some shards, and counts what it does."""

    def __init__(self, limits=()):
        self.limits, self.done = dict(limits), []

    def map_shards(self, work, numbers):
        for number, record in zip(numbers, super().map_shards(work, numbers), strict=True):
            self.done.append((work.name, number))
            yield record
            if sum(name == work.name for name, _ in self.done) == self.limits.get(work.name):
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def alone(kit, pool_folder, tmp_path_factory):
    engine = Killed()
    return engine.done, select_distributed(
        engine, kit.build_call(str(pool_folder)), tmp_path_factory.mktemp("a") / "o", partitions=4
    )


@pytest.mark.parametrize("stage", ["read", "features", "first round", "write"])
def test_a_killed_run_goes_on_with_the_shards_that_are_not_done(kit, pool_folder, tmp_path, alone, stage):
    asked, (done, whole) = kit.build_call(str(pool_folder)), alone
    first, second = Killed({stage: 2}), Killed()
    with pytest.raises(KeyboardInterrupt):
        select_distributed(first, asked, tmp_path / "out", partitions=4)
    assert not (tmp_path / "out").exists()
    subset = select_distributed(second, asked, tmp_path / "out", partitions=4)
    assert sorted(first.done + second.done) == sorted(done), "every shard of every stage is done once"
    assert subset.manifest.hash == whole.manifest.hash
    assert subset.dropped.equals(whole.dropped)


@pytest.mark.parametrize("is_record", [False, True])
@pytest.mark.parametrize("stage", ["read", "features", "partition", "first round", "bound", "write"])
def test_what_was_damaged_after_a_kill_is_made_again(kit, pool_folder, tmp_path, alone, stage, is_record):
    """One bit of every record of a shard that a killed run has left, or of every other file."""
    done, whole = alone
    with pytest.raises(KeyboardInterrupt):
        select_distributed(Killed({stage: 2}), kit.build_call(str(pool_folder)), tmp_path / "out", partitions=4)
    hidden = [tmp_path / ".out.stages", tmp_path / ".out.partial"]
    files = sorted(path for folder in hidden for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for path in files:
        if (path.suffix == ".json") == is_record and path.name != "identity.txt":
            content = bytearray(path.read_bytes())
            bit = random.Random(path.name).randrange(8 * len(content))
            content[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(content)
    notes, again = [], Killed()
    call = replace(kit.build_call(str(pool_folder)), on_progress=lambda progress: notes.append(progress.note))
    subset = select_distributed(again, call, tmp_path / "out", partitions=4)
    assert len(again.done) == len(done)
    damages = [note for note in notes if note and note.endswith("; its shard will be computed again")]
    assert len(damages) == sum(path.suffix == ".json" for path in files)
    assert subset.manifest.hash == whole.manifest.hash
    assert subset.dropped.equals(whole.dropped)
    kit.assert_same(whole, subset)


def test_the_same_command_again_finds_its_result(kit, pool_folder, tmp_path):
    subset = kit.run_in_process(str(pool_folder), tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = Killed()
    found = select_distributed(again, kit.build_call(str(pool_folder)), tmp_path / "out")
    assert {name for name, _ in again.done} == {"read"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times
    assert found.manifest.content == subset.manifest.content


def test_a_file_that_changed_after_a_kill_is_read_again(kit, tmp_path):
    folder = kit.write_shards(tmp_path / "pool", kit.make_rows(60), 3)
    with pytest.raises(KeyboardInterrupt):
        select_distributed(Killed({"features": 2}), kit.build_call(str(folder), budget=5), tmp_path / "out")
    with (folder / "part-1.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "new", "completion": "row", "kind": "a"}) + "\n")
    subset = select_distributed(Killed(), kit.build_call(str(folder), budget=5), tmp_path / "out")
    assert kit.read_facts(subset)["counts"]["usable"] == 61
    kit.assert_same(
        th.select(str(folder), "facility-location", budget=5, encoder="static", out=tmp_path / "here"), subset
    )


def test_a_node_with_another_version_is_refused(pool_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("thresher.selection.distributed.stage.versions", lambda names: {"thresher": "9.9"})
    engine, work = InProcess(), type("W", (), {"name": "w", "folder": tmp_path, "memory_bytes": 0})()
    type(work).__call__ = lambda self, number: {}
    run_stage(engine, work, range(1))
    record, _ = load_record(tmp_path, 0)
    monkeypatch.undo()
    assert load_record(tmp_path, 0) == (None, None), "nor does a later run go on with what it did"
    with pytest.raises(InputError, match=r"must have thresher .*, found 9.9; install one version on all nodes"):
        check_version(record)


@pytest.mark.parametrize("first", ["ray", "local"])
def test_what_a_killed_run_of_the_other_engine_left_is_not_in_the_result(
    kit, pool_folder, tmp_path, monkeypatch, first
):
    asked = kit.build_call(str(pool_folder))

    def interrupted(*_):
        raise KeyboardInterrupt

    def local():
        return th.select(str(pool_folder), "facility-location", budget=40, encoder="static", out=tmp_path / "out")

    with monkeypatch.context() as patch:
        if first == "local":
            patch.setattr("thresher.subset.subset.write_parquet", interrupted)
        killed = {"local": local, "ray": lambda: select_distributed(Killed({"write": 2}), asked, tmp_path / "out")}[
            first
        ]
        with pytest.raises(KeyboardInterrupt):
            killed()
    if first == "ray":
        local()
    else:
        select_distributed(InProcess(), asked, tmp_path / "out")
    assert len(th.load(tmp_path / "out")) == 40
    kinds = [path.name.partition(".")[0].partition("-")[0] for path in (tmp_path / "out").iterdir()]
    n = 5 if first == "local" else 1
    assert {"scores": n, "dropped": n, "manifest": 1}.items() <= Counter(kinds).items()
    assert set(kinds) == {"subset", "dropped", "scores", "rejected", "manifest"}


def test_values_that_were_computed_again_are_written_again(kit, pool_folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        select_distributed(Killed({"write": 3}), kit.build_call(str(pool_folder)), tmp_path / "out")
    again = Killed()  # another device rounds otherwise, and may pick others
    select_distributed(again, kit.build_call(str(pool_folder), device="cpu"), tmp_path / "out")
    assert sorted(number for name, number in again.done if name == "write") == list(range(5))


def test_files_without_rows_are_shards_as_any_other(kit, tmp_path):
    (tmp_path / "pool").mkdir()
    for number in range(3):
        rows = pl.DataFrame(kit.make_rows(20, seed=number))
        (rows.head(0) if number == 1 else rows).write_parquet(tmp_path / "pool" / f"{number}.parquet")
    pool = str(tmp_path / "pool")
    here = th.select(pool, "random", budget=9, quota="kind=balanced", out=tmp_path / "here")
    kit.assert_same(here, kit.run_in_process(pool, tmp_path / "there", "random", budget=9, quota="kind=balanced"))
    assert len(kit.run_in_process(pool, tmp_path / "parts", budget=9, partitions=6)) == 9


def test_a_row_that_changed_while_features_were_computed_is_noticed(kit, tmp_path, color_rows):
    pytest.importorskip("sklearn")
    folder = kit.write_shards(tmp_path / "pool", color_rows, 3)

    class Rewriting(InProcess):
        def map_shards(self, work, numbers):
            yield from super().map_shards(work, numbers)
            if work.name == "features":
                path = folder / "part-2.jsonl"
                path.write_text("".join(sorted(path.read_text().splitlines(keepends=True))))

    with pytest.raises(InputError, match="the files changed while they were being read"):
        select_distributed(Rewriting(), kit.build_call(str(folder), "confidence", budget=9), tmp_path / "out")


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    work = type("W", (), {"folder": tmp_path / "only-there", "__call__": lambda self, number: {}})()
    with pytest.raises(OutputError, match=r"only-there: must be seen by every node .*; choose --out on storage"):
        run_shard(work, 0)


def test_what_cannot_be_sharded_is_refused(kit, pool_folder, tmp_path):
    pool, out = str(pool_folder), tmp_path / "out"
    with pytest.raises(InputError, match="needs a folder for the result"):
        select_distributed(InProcess(), kit.build_call(pool), None)
    with pytest.raises(InputError, match="in the order of the files, got 'rank'"):
        kit.run_in_process(pool, out, order="rank")
    with pytest.raises(InputError, match="got standard input"):
        kit.run_in_process("-", out)
    with pytest.raises(InputError, match="got list"):
        kit.run_in_process([{"prompt": "a", "completion": "b"}], out)
    with pytest.raises(InputError, match="must be all rows of its files"):
        kit.run_in_process(th.load(pool).take([0, 1, 2]), out)
    with pytest.raises(InputError, match="cannot weigh rows"):
        kit.run_in_process(pool, out, "random", partitions=3)
    with pytest.raises(InputError, match=r"partitions: must be in 1\.\.298"):
        kit.run_in_process(pool, out, partitions=299)
    with pytest.raises(InputError, match="need a budget in rows"):
        kit.run_in_process(pool, out, partitions=3, budget="100tok")
    with pytest.raises(InputError, match="cannot be used .*fix them"):
        kit.run_in_process(shards(pool, strict=True), out)
    with pytest.raises(InputError, match="address, partitions: are for the engine 'ray'"):
        th.select(pool, "facility-location", budget=3, partitions=3)
    with pytest.raises(InputError, match="engine: must be 'local' or 'ray', got 'dask'"):
        th.select(pool, "facility-location", budget=3, engine="dask")
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="it holds precious.txt"):
        kit.run_in_process(pool, out)


def test_a_file_that_disagrees_is_named(kit, tmp_path):
    folder = kit.write_shards(tmp_path / "pool", kit.make_rows(30), 3)
    (folder / "part-9.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    with pytest.raises(InputError, match=r"part-9.jsonl: rows of schema 'prompt-completion' are required.*1 x "):
        kit.run_in_process(str(folder), tmp_path / "out")
    (folder / "part-9.jsonl").unlink()
    (folder / "part-9.csv").write_text("prompt,completion\na,b\n")
    with pytest.raises(InputError, match=r"must be of one format, found \.csv, \.jsonl"):
        kit.run_in_process([*folder.iterdir()], tmp_path / "out")


def test_sources_side_by_side_are_those_of_one_machine(kit, pool_folder, tmp_path):
    rows = [{"q": f"question {i} of {i % 7}", "a": f"answer {i}", "good": i % 3 > 0} for i in range(60)]
    kit.write_shards(tmp_path / "quiz", rows, 2)
    quiz = th.Source(tmp_path / "quiz", columns={"prompt": "q", "response": "a"}, wanted="good")
    sources = [th.Source(pool_folder), quiz]
    here = th.select(th.load(sources), "facility-location", budget=30, encoder="static", out=tmp_path / "here")
    files = shards(sources)
    there = kit.run_in_process(files, tmp_path / "there", budget=30)
    kit.assert_same(here, there)
    assert here.manifest.content["counts"]["rejected"] == 22
    assert th.load(sorted((tmp_path / "there").glob("subset-*.jsonl"))).n_rejected == 0
    of_dataset = kit.run_in_process(th.load(sources), tmp_path / "of-dataset", budget=30)
    assert of_dataset.kept.tolist() == here.kept.tolist()
    with pytest.raises(InputError, match="is in two sources"):
        shards([quiz, quiz])
