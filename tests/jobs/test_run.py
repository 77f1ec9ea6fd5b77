"""What a run does: what it reads, keeps, drops, carries over, and when it publishes nothing."""

import json

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError, ManifestError, SettingsError
from thresher.features import compute, make_context
from thresher.jobs.inspection import check_job
from thresher.jobs.snapshots.table import FILE, ROW_ID, SINCE, WEIGHT
from thresher.reporting import report


def ids(table):
    return set(table[ROW_ID].to_list())


def test_a_run_publishes_then_finds_nothing_new_then_only_the_new(kit, rows):
    kit.write()
    kit.add("a", rows(30, 1))
    first = kit.run()
    assert (first.outcome, first.exit_code, first.version) == ("done", 0, 1)
    assert first.report["counts"]["entered"] == 30
    again = kit.run()
    assert (again.outcome, again.exit_code, again.version) == ("nothing-new", 3, 1)
    before = kit.table()
    kit.add("b", rows(12, 2))
    second = kit.run()
    assert (second.outcome, second.version) == ("done", 2)
    assert (
        second.report["counts"] | {"files_new": 1, "files_known": 1, "read": 12, "new": 12} == second.report["counts"]
    )
    after = kit.table()
    assert after.head(30).equals(before)
    assert after[SINCE].to_list() == [1] * 30 + [2] * 12
    assert after[FILE].to_list() == ["src/a.jsonl"] * 30 + ["src/b.jsonl"] * 12
    assert after[WEIGHT].to_list() == [1] * 42


def test_a_file_that_grew_is_read_again_but_its_old_rows_are_known(kit, rows):
    kit.write()
    kit.add("a", rows(20, 1))
    kit.run()
    kit.add("a", [*rows(20, 1), *rows(5, 2)])
    counts = kit.run().report["counts"]
    assert (counts["read"], counts["known"], counts["new"], counts["rows"]) == (25, 20, 5, 25)


def test_a_row_that_was_dropped_is_not_evaluated_again(kit, rows):
    kit.write(steps='[[steps]]\nrule = "length"\nmax_tokens = 6\n')
    kit.add("a", [*rows(10, 1), {"prompt": "hi", "completion": "you"}])
    assert kit.run().report["counts"]["passed"] == 1
    kit.add("b", rows(10, 1))
    result = kit.run()
    assert result.outcome == "nothing-new"
    assert result.report["counts"]["known"] == 10
    assert kit.run().report["counts"]["files_new"] == 0  # the file is remembered without a snapshot


def test_a_renamed_file_is_known_by_its_content(kit, rows):
    kit.write()
    path = kit.add("a", rows(10, 1))
    kit.run()
    path.rename(path.with_name("z.jsonl"))
    result = kit.run()
    assert result.outcome == "nothing-new"
    assert result.report["counts"]["files_gone"] == 1


def test_the_rows_of_two_nights_are_those_of_one_for_rules_that_are_exact(kit, rows, tmp_path):
    shared = rows(15, 3)
    kit.write()
    kit.add("a", [*rows(20, 1), *shared])
    kit.run()
    kit.add("b", [*shared, *rows(20, 2)])
    kit.run()
    other = type(kit)(tmp_path / "other").write()
    other.add("a", [*rows(20, 1), *shared])
    other.add("b", [*shared, *rows(20, 2)])
    other.run()
    assert ids(kit.table()) == ids(other.table())
    assert kit.table().drop(SINCE).equals(other.table().drop(SINCE))


def test_the_total_is_never_exceeded_and_weights_sum_to_the_rows_that_passed(kit, rows):
    kit.write(select="total = 25")
    passed = 0
    for night in range(4):
        kit.add(f"n{night}", rows(20, night))
        result = kit.run()
        passed += result.report["counts"]["passed"]
        table = kit.table()
        assert len(table) == min(25, passed)
        assert table[WEIGHT].sum() == passed == kit.manifest()["weight"]
    left = pl.read_parquet(kit.out / "latest" / "dropped.parquet").filter("was_kept")
    assert len(left) == result.report["counts"]["left"] > 0
    assert set(left["duplicate_of"]) <= ids(table)
    assert (left["reason"] == "covered").all()


def test_old_rows_keep_their_weight_when_a_night_brings_one_topic_alone(kit, rows):
    kit.write(select="total = 12", steps="")
    kit.add("a", rows(120, 1))  # three topics alike
    kit.run()
    kit.add("b", rows(40, 2, topics=("banking",)))
    kit.run()
    kept = kit.table()
    share = kept["completion"].str.contains("loan|interest|deposit|branch|credit|teller|account|fee|ledger|bond").mean()
    assert share < 0.75  # half of all rows are about banking, and all of the new ones
    assert kept[WEIGHT].sum() == 160


def test_a_budget_is_of_the_new_rows_and_avoids_what_is_covered(kit, rows):
    kit.write(select='budget = "25%"')
    kit.add("a", rows(40, 1))
    assert kit.run().report["counts"]["entered"] == 10
    kit.add("b", rows(20, 2))
    result = kit.run()
    assert result.report["counts"]["entered"] == 5
    assert len(kit.table()) == 15
    assert kit.table()[WEIGHT].sum() == 60
    assert {one["stage"] for one in result.report["out"]} == {"budget"}


def test_a_budget_larger_than_a_quiet_night_takes_all(kit, rows):
    kit.write(select="budget = 50")
    kit.add("a", rows(10, 1))
    assert kit.run().report["counts"]["entered"] == 10


def test_a_cap_by_the_method_keeps_its_best_of_old_and_new(kit, rows):
    kit.write(select='method = "length"\ntotal = 6\ncap = "method"')
    kit.add("a", rows(10, 1))
    kit.run()
    kit.add("b", [*rows(5, 2), *({"prompt": f"long {n} " + "word " * 80, "completion": "yes"} for n in range(6))])
    kit.run()
    lengths = kit.table()["prompt"].str.len_chars()
    assert len(lengths) == 6
    assert lengths.min() > 300


def test_a_manifest_that_lacks_a_part_is_an_error(kit):
    kit.run_first()
    path = kit.out / "latest" / "manifest.json"
    content = json.loads(path.read_bytes())
    del content["schema"], content["run"]["seal"]
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="must have 'schema', found none"):
        kit.run()


def test_other_columns_are_refused_and_not_ignored(kit, rows):
    """The job file said so, and the rows were read as before."""
    kit.run_first(more='[rows]\nschema = "prompt-completion"\n')
    kit.write(more='[rows]\ncolumns = {prompt = "prompt", response = "completion"}\n')
    assert kit.run().outcome == "done"  # these are the same columns
    kit.write(more='[rows]\ncolumns = {prompt = "completion", response = "prompt"}\n')
    for refused in (kit.run, lambda: check_job(kit.file)):
        with pytest.raises(SettingsError, match="response=completion.* found mapped: prompt=completion"):
            refused()
    kit.write(more='[rows]\nschema = "alpaca"\n')
    with pytest.raises(SettingsError, match="found alpaca; set it back"):
        kit.run()


def test_two_jobs_in_one_folder_are_a_warning(kit, rows):
    kit.run_first()
    kit.file = kit.file.rename(kit.root / "other.toml")
    kit.add("b", rows(5, 2))
    kit.run()
    assert any("made by the job 'job', and this is 'other'" in message for message in kit.warnings())


def test_check_knows_the_files_that_brought_nothing_new(kit, rows):
    kit.run_first()
    kit.add("b", rows(3, 1))
    assert check_job(kit.file)["files_new"] == 1
    assert kit.run().outcome == "nothing-new"
    assert check_job(kit.file)["files_new"] == 0


def test_rows_of_the_test_set_are_dropped_without_being_asked(kit, rows):
    leak = rows(3, 9)
    (kit.root).mkdir(parents=True)
    (kit.root / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in leak))
    kit.write(steps="")
    kit.file.write_text('eval = ["dev.jsonl"]\n' + kit.file.read_text())
    kit.add("a", [*rows(10, 1), *leak])
    result = kit.run()
    assert {one["rule"] for one in result.report["out"]} == {"contamination"}
    assert result.report["counts"]["entered"] == 10


def test_only_new_rows_cost_features(kit, rows, monkeypatch):
    from thresher.models.encoders.static import StaticEncoder

    encoded = []
    original = StaticEncoder.encode_batches

    def counted(self, texts):
        encoded.append(len(texts))
        return original(self, texts)

    monkeypatch.setattr(StaticEncoder, "encode_batches", counted)
    kit.write(select="total = 20")
    for night in range(3):
        kit.add(f"n{night}", rows(15, night))
        kit.run()
    assert sum(encoded) == 45


def test_a_damaged_cache_chunk_is_computed_again_with_a_warning(kit, rows, tmp_path, read_snapshot):
    kit.write(select="total = 20")
    kit.add("a", rows(30, 1))
    kit.run()
    expected = read_snapshot(kit.out / "latest")
    for chunk in (tmp_path / "cache").rglob("chunk-*"):
        data = bytearray(chunk.read_bytes())
        data[-3] ^= 0xFF
        chunk.write_bytes(data)
    other = type(kit)(tmp_path / "again").write(select="total = 20")
    other.add("a", rows(30, 1))
    other.run()
    assert any("was damaged" in message for message in other.warnings())
    assert read_snapshot(other.out / "latest") == expected


def test_dry_run_writes_nothing(kit, rows):
    kit.write()
    kit.add("a", rows(10, 1))
    result = kit.run(dry_run=True)
    assert (result.outcome, result.report["counts"]["entered"], result.snapshot) == ("done", 10, None)
    assert not kit.out.exists()


def test_since_skips_older_files(kit, rows):
    import os

    kit.write()
    old = kit.add("old", rows(5, 1))
    os.utime(old, (1_000_000_000, 1_000_000_000))
    kit.add("new", rows(7, 2))
    assert kit.run(since="2010-01-01").report["counts"]["entered"] == 7
    assert kit.run().report["counts"]["entered"] == 5  # it was passed over, not forgotten
    with pytest.raises(InputError, match="--since: must be a date or time"):
        kit.run(since="yesterday")


def test_the_clock_may_jump_back_years(kit, rows, monkeypatch):
    import thresher.jobs.run_record as module

    class Early(module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1971, 1, 1, tzinfo=tz)

    kit.write()
    kit.add("a", rows(10, 1))
    kit.run()
    kit.add("b", rows(10, 2))
    monkeypatch.setattr(module, "datetime", Early)
    assert kit.run().version == 2
    assert kit.manifest()["parent"]["version"] == 1


def test_only_the_last_snapshots_stay(kit, rows):
    kit.write(output="keep = 2")
    for night in range(4):
        kit.add(f"n{night}", rows(5, night))
        kit.run()
    assert sorted(path.name for path in (kit.out / "snapshots").iterdir()) == ["v000003", "v000004"]
    assert len(kit.table()) == 20
    assert kit.run().outcome == "nothing-new"  # the rows of deleted snapshots are still known


def test_a_damaged_snapshot_is_refused_and_an_older_one_goes_on(kit, rows):
    kit.write()
    for night in range(2):
        kit.add(f"n{night}", rows(10, night))
        kit.run()
    shard = next((kit.out / "latest" / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-9] + b"012345678")
    kit.add("n2", rows(10, 2))
    with pytest.raises((ManifestError, InputError)):
        kit.run()
    (kit.out / "latest").unlink()
    (kit.out / "latest").symlink_to("snapshots/v000001")
    assert kit.run().version == 3
    assert len(kit.table()) == 30


def test_columns_whose_types_change_from_night_to_night_lose_nothing(kit, rows):
    kit.write()
    kit.add("a", [{**row, "score": n, "extra": {"k": n}} for n, row in enumerate(rows(4, 1))])
    kit.run()
    kit.add("b", [{**row, "score": "high", "extra": {}, "only": [1, "two"]} for row in rows(3, 2)])
    kit.run()
    table = kit.table()
    assert [json.loads(value) for value in table["score"]] == [0, 1, 2, 3, "high", "high", "high"]
    assert [json.loads(value) for value in table["extra"]] == [{"k": n} for n in range(4)] + [{}] * 3
    assert json.loads(table["only"][5]) == [1, "two"]
    kit.add("c", [{**row, "score": 2.5} for row in rows(2, 3)])
    kit.run()
    assert [json.loads(value) for value in kit.table()["score"]][-3:] == ["high", 2.5, 2.5]


def test_chats_with_tool_calls_come_through_two_snapshots_unchanged(kit):
    def chat(n, **more):
        return {
            "messages": [
                {"role": "user", "content": f"question {n}"},
                {"role": "assistant", "content": f"answer {n}", **more},
            ]
        }

    kit.write(steps="", select="total = 50")
    kit.add("a", [chat(n) for n in range(4)])
    kit.run()
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    kit.add("b", [chat(9, tool_calls=[call])])
    kit.run()
    kit.add("c", [chat(20)])
    kit.run()
    table = kit.table()
    assert len(table) == 6
    assert table["messages"][4][1]["tool_calls"][0]["function"]["name"] == "f"
    again = kit.root / "src" / "again.jsonl"
    again.write_text("".join(json.dumps(chat(n)) + "\n" for n in (3, 1, 2, 0)))
    assert kit.run().report["counts"]["known"] == 4


def test_a_night_of_which_no_row_passes_makes_an_empty_snapshot_that_goes_on(kit, rows):
    kit.write(steps='[[steps]]\nrule = "length"\nmin_tokens = 5\n', select="total = 8")
    kit.add("a", [{"prompt": "0", "completion": "0"}])
    assert kit.run().report["counts"]["rows"] == 0
    assert kit.run().outcome == "nothing-new"
    kit.add("b", rows(10, 1))
    assert kit.run().report["counts"]["rows"] == 8


def test_no_source_with_rows_is_an_error(kit):
    kit.write()
    with pytest.raises(InputError, match="must hold rows"):
        kit.run()


def test_our_own_snapshots_below_a_glob_are_not_read(kit):
    kit.run_first(source='files = ["**/*.jsonl", "**/*.parquet"]')
    assert kit.run().outcome == "nothing-new"


def test_rows_of_two_schemas_are_refused_by_name(kit, rows):
    kit.write(source='files = ["src/*.jsonl"]\n[[sources]]\nfiles = ["chat.jsonl"]')
    kit.add("a", rows(5, 1))
    (kit.root / "chat.jsonl").write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(InputError, match=r"source files-2: at least one usable row is required, found none in its 1"):
        kit.run()


def test_the_objective_is_that_of_the_kept_rows(kit, rows):
    kit.write(select="total = 8", steps="")
    kit.add("a", rows(40, 1))
    kit.run()
    kept = kit.table()["prompt"].to_list()
    all_rows = rows(40, 1)
    from thresher.dataset import load

    x = compute(load(all_rows), {"embedding"}, make_context(encoder="static"))["embedding"]
    at = [n for n, row in enumerate(all_rows) if row["prompt"] in kept]
    value = np.maximum((x @ x[at].T).max(axis=1), 0).mean()
    assert kit.manifest()["objective"] == pytest.approx(value, abs=1e-4)


def test_how_auto_decided_is_reported_and_on_the_page(kit, rows):
    kit.write(select='method = "auto"\nbudget = 5')
    kit.add("a", rows(30, 1))
    (decision,) = kit.run().report["decisions"]
    assert decision.startswith("auto: random rows: without labels or a target")
    assert "How the method was chosen" in report(kit.out / "latest").read_text()
    kit.add("b", rows(3, 2))
    assert kit.run().report["decisions"] == []  # nothing was left to choose
