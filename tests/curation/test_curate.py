"""Rules over a pool: order, what is written, masks in the user's format, and the command."""

import csv
import gzip
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thresher as th
from thresher.artifacts.manifest import Manifest
from thresher.cli.main import main
from thresher.curation import Verdict, drop_where
from thresher.curation.pipeline import apply_rules
from thresher.curation.rule import Rule
from thresher.curation.rules.exact_duplicates import ExactDuplicates
from thresher.curation.rules.length import Length
from thresher.curation.rules.near_duplicates import NearDuplicates
from thresher.curation.rules.pii import Pii
from thresher.errors import InputError, OutputError, SettingsError

pytest.importorskip("phonenumbers")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


ROWS = [
    {"instruction": "Say hello to Jane", "input": "", "output": "Hello Jane, mail me at jane@mail.net!", "n": 1},
    {"instruction": "Say  hello to jane", "input": "", "output": "hello jane, mail me at jane@mail.net!", "n": 2},
    {"instruction": "Name the capital of France", "input": "", "output": "Paris", "n": 3},
    {"instruction": "Name the capital of Italy", "input": "please", "output": "Rome", "n": 4},
    {"instruction": "Name the capital of Spain", "input": "", "output": "Madrid \u00e9", "n": 5},
]


def write(path, rows=ROWS):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path, [line.encode() for line in lines]


def test_kept_rows_are_copied_byte_for_byte(tmp_path):
    path, lines = write(tmp_path / "pool.jsonl")
    curated = th.curate(path, ["exact-duplicates"], out=tmp_path / "out")
    assert (tmp_path / "out/rows.jsonl").read_bytes() == b"".join(line for i, line in enumerate(lines) if i != 1)
    dropped = pl.read_parquet(tmp_path / "out/dropped.parquet")
    assert dropped.equals(curated.dropped)
    assert dropped["rule"].to_list() == ["exact-duplicates"]
    assert dropped["duplicate_of"][0] == curated.pool.frame["row_id"][0]
    assert dropped["line"].to_list() == [2]
    counts = Manifest.read(tmp_path / "out").content["counts"]
    assert (counts["usable"], counts["kept"], counts["dropped"]) == (5, 4, 1)
    assert counts["dropped_by_reason"] == {"exact-duplicate": 1}
    clusters = pl.read_parquet(tmp_path / "out/clusters.parquet")
    assert clusters["is_kept"].to_list() == [True, False]


def test_a_masked_row_is_written_anew_and_the_others_are_not_touched(tmp_path):
    path, lines = write(tmp_path / "pool.jsonl")
    curated = th.curate(path, [ExactDuplicates(), Pii()], out=tmp_path / "out")
    written = (tmp_path / "out/rows.jsonl").read_bytes().splitlines(keepends=True)
    assert written[1:] == lines[2:]
    assert json.loads(written[0]) == ROWS[0] | {"output": "Hello Jane, mail me at [EMAIL]!"}
    audit = [json.loads(line) for line in (tmp_path / "out/masked.jsonl").read_text().splitlines()]
    assert audit == [{"row_id": curated.pool.frame["row_id"][0], "rules": ["pii"], "original": ROWS[0]}]
    assert curated.dataset.frame["response"][0] == "Hello Jane, mail me at [EMAIL]!"
    assert curated.dataset.rows([0])[0]["output"] == "Hello Jane, mail me at [EMAIL]!"
    assert curated.dataset.column("output")[0] == "Hello Jane, mail me at [EMAIL]!"
    for table in ("findings", "clusters", "dropped"):
        frame = pl.read_parquet(tmp_path / f"out/{table}.parquet").filter(pl.col("row_id") == audit[0]["row_id"])
        assert "jane@mail.net" not in str(frame.to_dicts())
    assert curated.findings["is_masked"].to_list() == [True]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet", ".jsonl.gz"])
def test_masks_keep_the_format(tmp_path, suffix):
    path = tmp_path / f"pool{suffix}"
    rows = [{"text": 'mail a@b.org, "now"', "n": "1"}, {"text": "nothing", "n": "2"}]
    if suffix == ".json":
        path.write_text(json.dumps(rows, indent=2))
    elif suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "n"])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    th.curate(path, ["pii"], out=tmp_path / "out")
    again = th.load(tmp_path / f"out/rows{suffix}")
    assert again.rows([0, 1]) == [{"text": 'mail [EMAIL], "now"', "n": "1"}, rows[1]]


def test_masks_reach_every_message_and_no_role(tmp_path):
    path = tmp_path / "chat.jsonl"
    messages = [
        {"role": "system", "content": "Reply to boss@firm.net only."},
        {"role": "user", "content": [{"type": "text", "text": "I am a@b.org"}]},
        {"role": "assistant", "content": "Thanks."},
    ]
    path.write_text(json.dumps({"messages": messages, "note": "x@y.org"}) + "\n")
    curated = th.curate(path, ["pii"])
    (row,) = curated.rows
    assert row["messages"][0] == {"role": "system", "content": "Reply to [EMAIL] only."}
    assert row["messages"][1]["content"] == [{"type": "text", "text": "I am [EMAIL]"}]
    assert row["note"] == "x@y.org", "columns that the schema does not read are the user's own"
    assert "[EMAIL]" in curated.dataset.frame["prompt"][0]


def test_a_mask_on_a_row_that_is_dropped_later_leaves_nothing(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    curated = th.curate(path, [Pii(), Length(max_words=8)])
    assert curated.manifest.content["counts"]["masked"] == 0


def test_rules_see_what_the_ones_before_kept(tmp_path):
    seen = []

    class Watch(Rule):
        name = "watch"

        def check(self, pool, *, existing, eval, rng):
            seen.append(len(pool))
            return drop_where(np.zeros(len(pool), np.bool_), "never", "never")

    path, _ = write(tmp_path / "pool.jsonl")
    th.curate(path, [Watch(), ExactDuplicates(), Watch()])
    assert seen == [5, 4]


def test_reported_rules_drop_nothing_and_their_findings_stand(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    curated = th.curate(path, ["exact-duplicates"], report=["exact-duplicates"])
    assert len(curated) == 5
    assert curated.findings["reason"].to_list() == ["exact-duplicate"]
    assert curated.findings["duplicate_of"].to_list() == [curated.pool.frame["row_id"][0]]


def test_an_evaluation_set_brings_contamination_first(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    test, _ = write(tmp_path / "test.jsonl", [ROWS[2] | {"output": "It is Paris"}])
    curated = th.curate(path, eval=test)
    assert [rule["name"] for rule in curated.manifest.content["rules"]] == [
        "contamination",
        "exact-duplicates",
        "near-duplicates",
    ]
    assert curated.dropped.filter(pl.col("reason") == "leak")["line"].to_list() == [3]
    softened = th.curate(path, ["exact-duplicates"], eval=test, report=["contamination"])
    assert len(softened) == 4


def test_rows_kept_before_keep_their_place(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    old, _ = write(tmp_path / "old.jsonl", ROWS[2:4])
    curated = th.curate(path, ["exact-duplicates"], existing=old)
    assert curated.dropped["duplicate_in"].to_list() == ["pool", "existing", "existing"]


def test_a_duplicate_of_a_row_that_goes_later_is_counted(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    pool = th.load(path)
    assert apply_rules(pool, [ExactDuplicates(), Length(max_words=8)]).n_orphaned == 1
    assert apply_rules(pool, [Length(max_words=8), ExactDuplicates()]).n_orphaned == 0


def test_no_row_left_is_refused_with_the_reasons(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    with pytest.raises(InputError, match=r"must keep at least one row, but all 5 are dropped \(5 too-long\)"):
        th.curate(path, [Length(max_words=1)])
    assert len(apply_rules(th.load(path), [Length(max_words=1), ExactDuplicates()]).kept) == 0


def test_the_same_request_is_the_same_result(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    first = th.curate(path, out=tmp_path / "a")
    assert th.curate(path, out=tmp_path / "b").manifest.hash == first.manifest.hash
    before = (tmp_path / "a/manifest.json").read_bytes()
    th.curate(path, out=tmp_path / "a")
    assert (tmp_path / "a/manifest.json").read_bytes() == before
    with pytest.raises(OutputError, match="must be new or empty"):
        th.curate(path, ["exact-duplicates"], out=tmp_path / "a")
    with pytest.raises(OutputError, match="must not replace its own input"):
        th.curate(path, out=tmp_path, force=True)


def test_a_verdict_that_does_not_fit_is_a_bug_of_the_rule():
    empty = pl.Series([None, None], dtype=pl.String)
    with pytest.raises(ValueError, match="one entry per row"):
        Verdict(reason=empty, explanation=empty[:1])
    with pytest.raises(ValueError, match="must have an explanation"):
        Verdict(reason=pl.Series(["x", None]), explanation=empty)


def test_unknown_names_are_refused(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    with pytest.raises(SettingsError, match="settings: 'near-duplicate' must be one of.*did you mean"):
        th.curate(path, settings={"near-duplicate": {"threshold": 0.5}})
    with pytest.raises(SettingsError, match="report: 'pii' must be one of .*; name it among the rules too"):
        th.curate(path, report=["pii"])
    with pytest.raises(InputError, match="contamination: needs rows to evaluate on"):
        th.curate(path, ["contamination"])


def test_names_may_be_a_text_with_commas(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    names = ["exact-duplicates", "near-duplicates"]
    assert th.curate(path, ", ".join(names), report=names[0]).manifest.hash == (
        th.curate(path, names, report=names[:1]).manifest.hash
    )


def test_the_command_is_the_function(tmp_path, capsys):
    path, _ = write(tmp_path / "pool.jsonl")
    arguments = ["curate", "clean", str(path), "--out", str(tmp_path / "cli"), "--set", "near-duplicates.threshold=0.9"]
    assert main(arguments) == 0
    summary = capsys.readouterr().err
    assert "exact-duplicates: 1 of 5 rows dropped" in summary
    assert "4 of 5 rows kept, 1 dropped" in summary
    same = th.curate(path, settings={"near-duplicates": {"threshold": 0.9}})
    assert Manifest.read(tmp_path / "cli").hash == same.manifest.hash
    assert main(["curate", "clean", str(path), "--out", str(tmp_path / "x"), "--set", "threshold=0.9"]) == 2
    assert "must be RULE.NAME=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_command_lists_rules(capsys):
    assert main(["curate", "rules"]) == 0
    assert "near-duplicates" in capsys.readouterr().out
    assert main(["curate", "rules", "language"]) == 0
    assert "--set language.languages=en" in capsys.readouterr().out
    assert main(["curate", "rules", "--json"]) == 0
    assert {"contamination", "pii"} <= {rule["name"] for rule in json.loads(capsys.readouterr().out)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=15), st.integers(0, 8))
def test_kept_and_dropped_make_up_the_pool(texts, n_existing):
    texts = [text.replace("\0", "") + "." for text in texts]
    frame = pl.DataFrame({"id": [f"r{i}" for i in range(len(texts))], "text": texts})
    pool = th.load(frame, id_column="id")
    existing = pool.take(list(range(min(n_existing, len(pool))))) if n_existing else None
    rules = [Length(max_characters=15), ExactDuplicates(), NearDuplicates(threshold=0.5)]
    outcome = apply_rules(pool, rules, existing=existing)
    both = sorted([*outcome.kept.tolist(), *outcome.dropped["position"].to_list()])
    assert both == list(range(len(pool)))
    assert sum(sum(result.dropped.values()) for result in outcome.results) == outcome.dropped.height
    assert [result.n_in for result in outcome.results][0] == len(pool)
    of_pool = outcome.dropped.filter(pl.col("duplicate_in") == "pool")["duplicate_of"].to_list()
    assert set(of_pool) <= set(pool.frame["row_id"])


def test_a_masked_csv_row_with_a_line_end_in_a_field_stays_one_row(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_bytes(b'text,label\n"mail jane@mail.net\nsoon",a\n"mail joe@mail.net\rsoon",b\nplain,a\n')
    th.curate(path, [Pii()], out=tmp_path / "out")
    with open(tmp_path / "out/rows.csv", newline="") as file:
        records = list(csv.reader(file))
    assert records[1:] == [["mail [EMAIL]\nsoon", "a"], ["mail [EMAIL]\rsoon", "b"], ["plain", "a"]]


def test_no_table_shows_the_text_of_a_row_with_personal_data(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl", [{"text": f"{i} mail me at jane@mail.net"} for i in (1, 1, 2)])
    for rules in ([Pii(), ExactDuplicates()], [ExactDuplicates(), Pii()], [Pii(action="report"), ExactDuplicates()]):
        curated = th.curate(path, rules)
        assert curated.dropped.height == 1
        for table in (curated.dropped, curated.findings, curated.clusters):
            assert table["preview"].null_count() == table.height > 0


def test_existing_rows_of_another_kind_are_refused():
    pool = pl.DataFrame({"text": ["one", "two"], "label": ["a", "b"]})
    with pytest.raises(InputError, match="existing: must hold rows of the pool's kind, classification, found text"):
        th.curate(pool, existing=pool.select("text"))


def test_groups_of_the_pool_and_of_existing_rows_with_one_name_are_two(tmp_path):
    """Names given by the user can be used in both files, for rows that have nothing in common."""

    def named(texts, start):
        return pl.DataFrame({"id": [str(start + i) for i in range(len(texts))], "text": texts})

    pool = th.load(named(["one row here", "One row here", "kept before"], 1), id_column="id")
    existing = th.load(named(["Kept before"], 1), id_column="id")
    clusters = th.curate(pool, ["exact-duplicates"], existing=existing).clusters
    assert clusters.select("cluster", "cluster_in", "row_id").rows() == [
        ("1", "existing", "3"),
        ("1", "pool", "1"),
        ("1", "pool", "2"),
    ]


def test_rows_that_a_mask_makes_equal_are_duplicates_after_it_and_not_before():
    texts = ["write to ann@company.com", "write to bob@company.com", "call me"]
    pool = th.load(pl.DataFrame({"text": texts}))
    behind = th.curate(pool, [Pii(kinds=("email",)), ExactDuplicates()])
    assert [row["text"] for row in behind.rows] == ["write to [EMAIL]", "call me"]
    before = th.curate(pool, [ExactDuplicates(), Pii(kinds=("email",))])
    assert [row["text"] for row in before.rows] == ["write to [EMAIL]", "write to [EMAIL]", "call me"]
    assert behind.manifest.content["notes"] == []
    assert before.manifest.content["notes"][0].startswith("pii comes after exact-duplicates, and should come before")


def test_existing_and_evaluation_rows_are_read_with_their_own_options(tmp_path):
    from thresher.cli.main import main as command

    lines = [{"key": f"k{i}", "text": f"row number {i} of all {'x' * 40 * (i == 4)}"} for i in range(6)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "beside").mkdir()
    for split, at in (("train", 0), ("test", 5)):
        (tmp_path / "beside" / f"{split}.jsonl").write_text(json.dumps(lines[at] | {"key": "other"}) + "\n")
    arguments = ["--id-column", "key", "--max-row-bytes", "60", "--rules", "exact-duplicates", "--quiet"]
    for role in ("existing", "eval"):
        arguments += [f"--{role}", str(tmp_path / "beside"), f"--{role}-split", "test" if role == "eval" else "train"]
    assert command(["curate", "clean", str(tmp_path / "pool.jsonl"), "--out", str(tmp_path / "out"), *arguments]) == 0
    dropped = pl.read_parquet(tmp_path / "out" / "dropped.parquet")
    assert dropped.select("row_id", "duplicate_of", "duplicate_in").rows() == [
        ("k0", "other", "existing"),
        ("k5", "other", "eval"),
    ]
    assert Manifest.read(tmp_path / "out").content["counts"]["rejected"] == 1


def test_the_kept_rows_of_a_result_are_loaded_by_the_name_of_its_folder(tmp_path):
    path, _ = write(tmp_path / "pool.jsonl")
    curated = th.curate(path, [ExactDuplicates()], out=tmp_path / "out")
    assert th.load(tmp_path / "out").fingerprint == curated.dataset.fingerprint


def test_a_rule_that_drops_more_than_a_third_is_named_last_and_fails_with_strict(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"question {'abc'[i % 3]}", "completion": "yes"} for i in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["curate", "clean", str(path), "--out", str(tmp_path / "out")]
    assert main([*command, "--strict"]) == 2
    assert "exact-duplicates: drops 6 of 9 rows, more than a third of the pool; " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("warning: exact-duplicates: drops 6 of 9 rows")
    assert main([*command, "--force", "--report", "exact-duplicates,near-duplicates"]) == 0
    assert "more than a third" not in capsys.readouterr().err


def test_rows_beside_the_pool_need_no_ids_of_its_column(tmp_path, capsys):
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"id": n, "text": f"row {n}"}) + "\n" for n in range(4)))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "row 3"}) + "\n")
    command = ["curate", "clean", str(tmp_path / "pool.jsonl"), "--id-column", "id", "--rules", "contamination"]
    assert main([*command, "--eval", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert [row["id"] for row in th.open(tmp_path / "out").rows] == [0, 1, 2]
