"""What a run reads: files that are new, damaged, empty, changing, odd; and what it says of them."""

import json
import os
import time
import types

import pytest

from thresher.errors import InputError
from thresher.jobs.run import parse_time
from thresher.jobs.sources.incoming import SourceReader
from thresher.jobs.sources.scan import HashCache, _read_modified


def test_a_source_that_changes_while_it_is_read_is_read_again(kit, rows, monkeypatch):
    import thresher.jobs.update.curate as module

    kit.write()
    path = kit.add("a", rows(10, 1))
    original, calls = module.apply_rules, []

    def growing(*arguments, **options):
        if not calls:
            with open(path, "a") as file:
                file.write(json.dumps(rows(1, 5)[0]) + "\n")
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(module, "apply_rules", growing)
    result = kit.run()
    assert result.report["counts"]["entered"] == 11
    assert any("starting again" in message for message in kit.warnings())


def test_a_damaged_file_fails_the_run_or_is_left_to_the_next(kit, rows):
    kit.write()
    kit.add("a", rows(10, 1))
    bad = kit.root / "src" / "b.jsonl.gz"
    bad.write_bytes(b"\x1f\x8b\x08 and then nothing good")
    kit.write(source='files = ["src/*"]')
    with pytest.raises(InputError, match="b.jsonl.gz"):
        kit.run()
    kit.write(source='files = ["src/*"]', more='[rows]\nunreadable = "skip"\n')
    result = kit.run()
    assert result.report["counts"]["entered"] == 10
    assert [one["name"] for one in result.report["skipped"]] == ["src/b.jsonl.gz"]
    import gzip

    bad.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows(4, 2)).encode()))
    assert kit.run().report["counts"]["entered"] == 4


def test_an_empty_file_is_a_warning_once_and_fails_nothing(kit, rows):
    kit.write()
    kit.add("b", rows(10, 1))
    (kit.root / "src" / "a.jsonl").write_text("")
    (kit.root / "src" / "c.jsonl").write_text('{"prompt": "", "completion": ""}\n')
    assert kit.run().report["counts"]["entered"] == 10
    assert [message.split()[0] for message in kit.warnings()] == ["src/a.jsonl", "src/c.jsonl"]
    assert kit.run().outcome == "nothing-new"
    assert kit.warnings() == []
    (kit.root / "src" / "d.jsonl").write_text("\n")
    assert kit.run().outcome == "nothing-new"
    assert kit.run().report["counts"]["files_new"] == 0


def test_a_compressed_bomb_is_refused(kit, rows):
    import gzip

    kit.write(source='files = ["src/*"]')
    (kit.root / "src").mkdir(parents=True)
    line = json.dumps({"prompt": "a", "completion": " " * 1_000_000}).encode() + b"\n"
    (kit.root / "src" / "bomb.jsonl.gz").write_bytes(gzip.compress(line * 100))
    with pytest.raises(InputError, match="expands from"):
        kit.run()


def test_rows_of_a_first_file_in_two_schemas_are_read_in_that_of_the_others(kit, rows):
    """Found by fuzzing: alone, the file passed for one of messages, and its row was lost."""
    kit.write()
    kit.add("a", [rows(1, 1)[0], {"messages": []}])
    kit.add("b", rows(5, 2))
    counts = kit.run().report["counts"]
    assert (counts["read"], counts["unusable"], counts["entered"]) == (7, 1, 6)


def test_unusable_rows_are_counted_and_can_fail_the_gate(kit, rows):
    kit.write(more="[gates]\nmax_unusable_share = 0.5\n")
    kit.add("a", rows(5, 1))
    assert kit.run().outcome == "done"
    (kit.root / "src" / "b.jsonl").write_text("not JSON\n" * 3)
    failed = kit.run()
    assert (failed.outcome, failed.report["counts"]["read"], failed.report["counts"]["unusable"]) == ("gate", 3, 3)
    assert kit.run().outcome == "gate"  # until somebody looks
    assert kit.run(accept=True).outcome == "nothing-new"
    assert kit.run().report["counts"]["files_new"] == 0


def test_a_link_beside_its_file_is_that_file(kit, rows):
    """`latest.jsonl` beside the files of each day made every run fail."""
    kit.write(source='files = ["src/*.jsonl", "src", "*/n?.jsonl"]')
    (kit.root / "src").mkdir(parents=True)
    (kit.root / "current").symlink_to("src")
    for day in ("n1", "n2"):
        kit.add(day, rows(5, int(day[1])))
        link = kit.root / "src" / "latest.jsonl"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{day}.jsonl")
        kit.run()
    assert sorted(set(kit.table()["thresher_file"])) == ["src/n1.jsonl", "src/n2.jsonl"]


def test_a_file_that_is_rotated_away_before_it_is_read_fails_nothing(kit, rows, monkeypatch):
    kit.write()
    kit.add("a", rows(5, 1))
    kit.add("b", rows(5, 2))
    original = SourceReader.read_files

    def late(self, files):
        (kit.root / "src" / "a.jsonl").unlink(missing_ok=True)
        return original(self, files)

    monkeypatch.setattr(SourceReader, "read_files", late)
    assert kit.run().report["counts"]["entered"] == 5
    assert any("src/a.jsonl disappeared before it could be read" in message for message in kit.warnings())


def test_a_file_that_may_still_be_written_is_left_to_the_next_run(kit, rows):
    """A row of CSV that is cut in the middle is a row all the same, and would stay for ever."""
    kit.write(source='files = ["src/*.csv"]', more="[rows]\nsettle_s = 60\n")
    (kit.root / "src").mkdir(parents=True)
    old, young = kit.root / "src" / "a.csv", kit.root / "src" / "b.csv"
    old.write_text("prompt,completion\nwhat is it,this\n")
    young.write_text("prompt,completion\nwhat is that,an unfinished ans")
    os.utime(old, (time.time() - 100,) * 2)
    result = kit.run()
    assert result.report["counts"]["entered"] == 1
    assert [one["name"] for one in result.report["skipped"]] == ["src/b.csv"]
    young.write_text("prompt,completion\nwhat is that,an unfinished answer\n")
    os.utime(young, (time.time() + 100,) * 2)  # by the clock of another machine
    assert kit.run().report["counts"]["entered"] == 1
    assert set(kit.table()["completion"]) == {"this", "an unfinished answer"}


def test_rejected_rows_are_named_from_the_folder_of_the_job(kit, rows):
    """As kept rows are: the same snapshot wherever that folder lies."""
    kit.write()
    torn = kit.add("a", rows(5, 1))
    torn.write_text(torn.read_text() + '{"torn": "')
    (kit.root / "src" / "b.jsonl").write_text("not JSON\n" * 3)
    kit.run()
    rejected = (kit.out / "latest" / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in rejected] == ["src/a.jsonl", *["src/b.jsonl"] * 3]


def test_the_folder_of_the_job_is_no_pattern(kit, rows):
    """Brackets in its name made every glob match nothing, night after night."""
    kit = type(kit)(kit.root / "pool [2026] *")
    (kit.root / "eval").mkdir(parents=True)
    (kit.root / "eval" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(3, 9)))
    kit.write()
    kit.file.write_text('eval = ["eval/*.jsonl"]\n' + kit.file.read_text())
    kit.add("a", [*rows(5, 1), *rows(3, 9)])
    assert kit.run().report["counts"]["entered"] == 5


def test_a_home_of_nobody_is_a_path_like_any_other(kit):
    kit.write(source='files = ["~no-such-user-here/a.jsonl"]')
    with pytest.raises(InputError, match="no such file"):
        kit.run()


def test_a_file_that_cannot_be_looked_at_is_left_to_the_next_run_where_the_job_says_so(kit, rows, monkeypatch):
    kit.write(more='[rows]\nunreadable = "skip"\n')
    kit.add("a", rows(5, 1))
    kit.add("b", rows(5, 2))
    real = HashCache.hash_file

    def refused(self, path):
        if path.name == "b.jsonl":
            raise InputError(f"{path}: the file must be readable, got 'Permission denied'; check its rights")
        return real(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(HashCache, "hash_file", refused)
        first = kit.run()
    assert (first.outcome, first.report["skipped"][0]["name"]) == ("done", "src/b.jsonl")
    assert kit.run().report["counts"]["entered"] == 5


def test_a_time_stamp_that_no_date_can_hold_is_compared_all_the_same():
    class Odd:
        def stat(self):
            return types.SimpleNamespace(st_mtime=1e18)

    assert _read_modified(Odd()) >= parse_time("2026-01-01").timestamp()


def test_a_file_that_just_changed_is_hashed_again_next_time(tmp_path):
    """It may change once more within the resolution of its time stamp."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n')
    (tmp_path / "scan.json").write_text(json.dumps({"files": {str(path): [[1, 2, 3, 4], "old"]}, "spent": {}}))
    cache = HashCache(tmp_path)
    cache.hash_file(path)
    cache.save()
    assert json.loads((tmp_path / "scan.json").read_text())["files"] == {}


def test_masked_rows_are_known_again_by_rules_for_duplicates_behind_the_mask(kit, rows):
    """A new row was compared as it was with a row that an earlier run had masked, and stayed."""
    pytest.importorskip("phonenumbers")
    steps = '[[steps]]\nrule = "pii"\nkinds = ["email"]\n[[steps]]\nrule = "exact-duplicates"\n'
    kit.write(steps=steps)
    kit.add("a", [{"prompt": "write to ann@company.com", "completion": "done"}])
    kit.run()
    assert kit.table()["prompt"].to_list() == ["write to [EMAIL]"]
    kit.add("b", [{"prompt": "Write  to bob@company.com", "completion": "done"}, *rows(1, 1)])
    assert kit.run().report["out"][0]["reason"] == "exact-duplicate"
    assert len(kit.table()) == 2


def test_an_order_of_steps_that_defeats_one_of_them_is_a_warning(kit, rows):
    steps = '[[steps]]\nrule = "exact-duplicates"\n[[steps]]\nrule = "conflicts"\n'
    kit.write(steps=steps)
    kit.add("a", rows(5, 1))
    kit.run()
    assert kit.warnings()[0].startswith("conflicts comes after exact-duplicates, and should come before it")
