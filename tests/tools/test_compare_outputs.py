"""Outputs of two versions are compared without what differs between two runs of one."""

import json

import numpy as np
import polars as pl
import pytest
from compare_outputs import describe_files, list_differences
from safetensors.numpy import save_file

MANIFEST = {
    "method": "random",
    "counts": {"kept": 2, "by_reason": [{"reason": "covered", "rows": 3}]},
    "run": {"created": "2026-11-29T20:49:56+00:00"},
    "versions": {"numpy": "2.0"},
    "total_seconds": 3.5,
}


@pytest.fixture
def describe(tmp_path):
    """Write files as a command would, and describe them."""

    def describe_outputs(name, files):
        work, out = tmp_path / f"{name}-work", tmp_path / name
        out.mkdir()
        for path, content in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pl.DataFrame):
                content.write_parquet(work / path)
            elif isinstance(content, np.ndarray):
                save_file({"keys": content, "values": content * 2.0}, work / path)
            else:
                (work / path).write_text(content if isinstance(content, str) else json.dumps(content))
        describe_files(work, out)
        return out

    return describe_outputs


def test_times_paths_versions_and_the_chunks_of_a_cache_do_not_count(describe, tmp_path):
    rows = np.arange(10, dtype=np.int64)
    chunk = "cache/v1/loss/0abc/chunk-{}-{}.safetensors"
    before = describe(
        "before",
        {
            "manifest.json": MANIFEST,
            "log.md": f"{tmp_path}/before-work took 2 min 3 s, 1.5 of it here, on 2026-11-29\nEnd.",
            "cost.parquet": pl.DataFrame({"n": [1], "seconds": [3.0]}),
            chunk.format(10, "a" * 32): rows,
            "scan.json": {"a": 1},
        },
    )
    after = describe(
        "after",
        {
            "manifest.json": {**MANIFEST, "run": {"created": "now"}, "versions": {"numpy": "3"}, "total_seconds": 4},
            "log.md": f"{tmp_path}/after-work took 8 s, 2.5 of it here, on 2026-12-01\nEnd.",
            "cost.parquet": pl.DataFrame({"n": [1], "seconds": [4.0]}),
            chunk.format(6, "b" * 32): rows[4:],
            chunk.format(4, "c" * 32): rows[:4],
        },
    )
    assert list(list_differences(before, after)) == []


def test_each_changed_key_and_column_is_named(describe):
    before = describe(
        "before",
        {
            "a/manifest.json": MANIFEST,
            "rows.parquet": pl.DataFrame({"n_cut": [1, 2], "loss": [0.5, 0.25]}),
            "page.md": "Same.\nOld.",
            "gone.json": {"x": 1},
            "churn.json": {"rows": 30},
        },
    )
    after = describe(
        "after",
        {
            "a/manifest.json": {**MANIFEST, "counts": {"kept": 3, "by_reason": [{"reason": "covered", "rows": 3}]}},
            "rows.parquet": pl.DataFrame({"n_truncated_tokens": [1, 2], "loss": [0.5, 0.75]}),
            "page.md": "Same.\nNew.",
            "new.json": {"x": 2},
            "changes.json": {"rows": 30},
        },
    )
    lines = list(list_differences(before, after))
    assert "gone.json: only before" in lines
    assert "new.json: only after" in lines
    assert "churn.json: renamed to changes.json, same content" in lines
    assert lines[lines.index("a/manifest.json:") + 1] == "    counts.kept: 2 -> 3"
    assert "    n_cut: renamed to n_truncated_tokens, same content" in lines
    assert any(line.startswith("    loss: 2 Float64 [0.5, 0.25] -> 2 Float64 [0.5, 0.75]") for line in lines)
    assert {"    -Old.", "    +New."} <= set(lines)


def test_a_part_that_only_one_side_has(describe):
    before, after = describe("before", {"a.json": {"x": 1, "y": 2}}), describe("after", {"a.json": {"y": 2, "z": 9}})
    assert list(list_differences(before, after)) == ["a.json:", "    x: gone (was 1)", "    z: new, 9"]
