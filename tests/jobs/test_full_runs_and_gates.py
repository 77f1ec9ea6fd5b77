"""Runs that evaluate every row again, and gates that publish nothing."""

import json

import polars as pl
import pytest


def test_changed_steps_evaluate_every_row_again_and_keep_rows_whose_file_is_gone(kit, rows):
    kit.write()
    gone = kit.add("a", rows(10, 1))
    kit.add("b", [*rows(10, 2), {"prompt": "x", "completion": "y"}])
    kit.run()
    gone.unlink()
    kit.write(steps='[[steps]]\nrule = "length"\nmin_tokens = 5\n')
    result = kit.run()
    assert result.outcome == "done"
    assert kit.manifest()["is_full"]
    assert len(kit.table()) == 20  # the short row went, the ten of the file that is gone stayed
    assert kit.run().outcome == "nothing-new"


def test_a_full_run_distinguishes_rows_of_the_previous_snapshot_from_new_ones(kit, rows):
    """It called all rows new, and none gone, though some had left."""
    kit.write()
    gone = kit.add("a", rows(4, 1))
    kit.add("b", rows(10, 2))
    kit.run()
    gone.unlink()
    kit.add("c", rows(3, 3))
    old = set(kit.table()["thresher_row_id"])
    kit.write(steps='[[steps]]\nrule = "expression"\nwhere = "prompt not like \'%2-3\'"\n', select="total = 12")
    report = kit.run().report
    table, dropped = kit.table(), pl.read_parquet(kit.out / "latest" / "dropped.parquet")
    new = set(table["thresher_row_id"])
    counts = report["counts"]
    assert (counts["entered"], counts["left"]) == (len(new - old), len(old - new))
    assert counts["left"] > 1
    assert set(dropped.filter("was_kept")["row_id"]) == old - new
    assert sum(one["rows"] for one in report["out"] if one["was_kept"]) == counts["left"]
    assert sum(report["entered_by_source"].values()) == counts["entered"]
    assert set(table.filter(pl.col("thresher_since") == 1)["thresher_row_id"]) == new & old
    assert any("4 kept rows are no longer in any source" in message for message in kit.warnings())


def test_changed_steps_alone_are_no_drift_of_the_new_rows(kit, rows):
    """All rows were compared with those of the last night, and the night after with all rows."""
    gates = "[gates]\ntopics = {fail = 0.1}\nn_topics = 3\n"
    kit.write(more=gates)
    kit.add("a", rows(60, 1))
    kit.run()
    kit.add("b", rows(40, 2, topics=("banking",)))
    kit.run(accept=True)
    kit.write(more=gates, steps='[[steps]]\nrule = "length"\nmax_tokens = 9999\n')
    changed = kit.run()
    assert changed.outcome == "done"
    assert [one["jensen_shannon"] for one in changed.report["drift"] if one["of"] == "incoming"] == [0.0, 0.0, 0.0]
    kit.add("c", rows(40, 3, topics=("banking",)))
    assert kit.run().outcome == "done"
    kit.add("d", rows(40, 4, topics=("sailing",)))
    assert kit.run(full=True).outcome == "gate"


def test_limits_for_labels_that_the_rows_lack_are_a_warning(kit, rows):
    kit.run_first(more="[gates]\nlabels = {fail = 0.1}\n")
    assert any("labels: the rows have none" in message for message in kit.warnings())


def test_another_model_of_the_same_name_evaluates_every_row_again(kit, rows):
    kit.write(select="total = 20")
    kit.add("a", rows(10, 1))
    kit.run()
    path = kit.out / "latest" / "manifest.json"
    content = json.loads(path.read_bytes())
    content["features"]["embedding"]["fingerprint"] = "of the weights before"
    del content["run"]["seal"]
    path.write_text(json.dumps(content))
    assert kit.run().outcome == "nothing-new"  # what reads no row asks no model
    kit.add("b", rows(5, 2))
    result = kit.run()
    assert any("changed under the same name" in event.message for event in kit.events)
    assert kit.manifest()["is_full"]
    assert (result.report["counts"]["new"], result.report["counts"]["entered"]) == (15, 5)
    # Counted by other centroids.
    assert not [one for one in result.report["drift"] if one["measure"] == "topics"]


def test_a_drift_beyond_its_limit_publishes_nothing_until_it_is_accepted(kit, rows):
    kit.write(more="[gates]\ntopics = {warn = 0.05, fail = 0.3}\nn_topics = 3\n")
    kit.add("a", rows(60, 1))
    kit.run()
    kit.add("b", rows(40, 2, topics=("banking",)))
    refused = kit.run()
    assert (refused.outcome, refused.exit_code, refused.version) == ("gate", 4, 1)
    assert "drift of topics" in kit.warnings()[-1]
    assert kit.run().exit_code == 4  # the same again
    dry = kit.run(dry_run=True)
    assert (dry.exit_code, dry.is_dry) == (4, True)
    accepted = kit.run(accept=True)
    assert (accepted.outcome, accepted.version) == ("done", 2)


@pytest.mark.parametrize(
    ("gate", "message_part"),
    [
        ("min_rows = 50", "at least 50 rows, got 20"),
        ("max_dropped_share = 0.1", "got 50.0%"),
        ("max_unusable_share = 0.01", "4.8%"),
    ],
)
def test_quality_gates(kit, rows, gate, message_part):
    kit.write(more=f"[gates]\n{gate}\n", steps='[[steps]]\nrule = "exact-duplicates"\n')
    path = kit.add("a", [*rows(20, 1), *({**row, "prompt": row["prompt"].upper()} for row in rows(20, 1))])
    path.write_text(path.read_text() + "not json\nnor this\n")
    assert kit.run().outcome == "gate"
    assert any(message_part in message for message in kit.warnings())
    assert not (kit.out / "latest").exists()


def test_a_night_whose_rows_all_score_low_keeps_the_old_ones(kit, rows):
    kit.write(select='method = "length"\nbudget = "score>5"\n')
    kit.add("a", rows(10, 1))
    kit.run()
    kit.add("b", [{"prompt": "x", "completion": "y"}])
    kit.run()
    assert len(kit.table()) == 10
    dropped = pl.read_parquet(kit.out / "latest" / "dropped.parquet")
    assert dropped["explanation"].str.contains("keeps no row of the 1 scored by length").to_list() == [True]
    assert kit.run().outcome == "nothing-new"  # the row was seen
