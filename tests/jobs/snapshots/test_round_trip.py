"""Rows come back from a snapshot as they were read, night after night."""

import json

import polars as pl

from thresher.dataset import load


def write_lines(kit, name, lines, more=""):
    kit.write(steps="", source='files = ["src/*"]', more=f"{more}\n[gates]\nn_topics = 0\n")
    (kit.root / "src").mkdir(exist_ok=True)
    (kit.root / "src" / name).write_text("\n".join(lines) + "\n")
    return kit.run()


def test_labels_of_a_snapshot_are_the_classes_that_were_read(kit):
    lines = ['{"text": "t1", "label": 1}', '{"text": "t2", "label": "spam"}', '{"text": "t3", "label": true}']
    write_lines(kit, "a.jsonl", [*lines, '{"text": "t4", "label": 2.0}'])
    assert kit.table()["label"].to_list() == ["1", "spam", "true", "2"]
    write_lines(kit, "b.csv", ["text,label", "t5,spam", "t6,true", "t7,1", "t8,2"])
    assert load(kit.out / "latest").frame["response"].to_list() == ["1", "spam", "true", "2", "spam", "true", "1", "2"]
    profile = json.loads((kit.out / "latest/profile.json").read_bytes())
    assert profile["snapshot"]["labels"] == dict.fromkeys(("1", "spam", "true", "2"), 2), profile


def test_a_job_goes_on_after_a_row_that_is_longer_than_the_default_limit(kit):
    rows = [json.dumps({"text": "x" * 5_000_000, "label": "a"}), '{"text": "t2", "label": "b"}']
    more = "[rows]\nmax_row_bytes = 8000000\n"
    assert write_lines(kit, "a.jsonl", rows, more).report["counts"]["rows"] == 2
    assert write_lines(kit, "b.jsonl", ['{"text": "t3", "label": "b"}'], more).report["counts"]["rows"] == 3
    assert len(load(kit.out / "latest")) == 3


def test_arguments_of_calls_come_back_from_a_snapshot_as_they_were(kit):
    def converse(text, *arguments):
        calls = [{"id": "1", "function": {"name": "f", "arguments": each}} for each in arguments]
        said = {"role": "assistant", "content": "ok"} | ({"tool_calls": calls} if calls else {})
        return json.dumps({"messages": [{"role": "user", "content": text}, said]})

    nights = [
        [converse("q0"), converse("q1", {"city": "x"})],
        [converse("q2", {"city": None, "n": 1}), converse("q3", {"n": 1.5}, {"n": 1})],
        [converse("q4", {"city": "y"})],
    ]
    for number, lines in enumerate(nights):
        write_lines(kit, f"{number}.jsonl", lines)
        if number == 0:
            assert kit.table()["messages"].dtype == pl.List, "other trainers read the column as it is"
    before, after = load(kit.root / "src"), load(kit.out / "latest")
    found = {text: after.messages([i])[0].messages for i, text in enumerate(after.frame["prompt"])}
    for i, text in enumerate(before.frame["prompt"]):
        assert json.dumps(found[text]) == json.dumps(before.messages([i])[0].messages)
