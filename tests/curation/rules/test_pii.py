"""Personal data are found by kind, checked, and masked without a rest."""

import functools
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import thresher
from thresher.curation.masking import _map_column
from thresher.curation.rules.pii import Pii, is_card, is_iban
from thresher.errors import SettingsError


def gone(verdict):
    return verdict.is_dropped.tolist()


def test_personal_data_are_found_by_kind_and_checked(rows, check):
    pytest.importorskip("phonenumbers")
    texts = [
        "write to jane.doe@mail.net or call +1 650 253 0000",
        "card 4111 1111 1111 1111, not 4111 1111 1111 1112",
        "account DE89 3704 0044 0532 0130 00 and not DE88 3704 0044 0532 0130 00",
        "host 8.8.8.8 and 192.168.0.1 and 999.1.1.1",
        "token AKIAIOSFODNN7EXAMPLE",
        "nothing here, version 1.2.3 from 2024-01-02, id 12345678",
        "write to me@example.com",
    ]
    verdict = check(Pii(action="report"), rows({"text": texts}))
    sentences = verdict.explanation.to_list()
    assert sentences[:5] == [
        "holds 1 email, 1 phone",
        "holds 1 credit-card",
        "holds 1 iban",
        "holds 1 ip",
        "holds 1 key",
    ]
    assert sentences[5:] == [None, None]
    assert not verdict.is_dropped.any()
    assert verdict.is_masked is None
    assert gone(check(Pii(action="drop"), rows({"text": texts}))) == [True] * 5 + [False] * 2


def test_a_mask_replaces_each_finding_and_nothing_else():
    pytest.importorskip("phonenumbers")
    texts = pl.Series(["mail a@b.org, a@b.org or c.a@b.org; call +1 650 253 0000.", "nothing"])
    assert Pii().mask(texts).to_list() == ["mail [EMAIL], [EMAIL] or [EMAIL]; call [PHONE].", "nothing"]


KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7+/abc\nshort==\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna-maria@x.org and maria@x.org", "[EMAIL] and [EMAIL]"),
        ("card 4111 1111 1111 1111 12/26", "card [CREDIT-CARD] 12/26"),
        ("pay 4111111111111111 123", "pay [CREDIT-CARD] 123"),
        ("no 7 4111-1111-1111-1111", "no 7 [CREDIT-CARD]"),
        ("请联系foo@bar.com谢谢", "请联系[EMAIL]谢谢"),
        ("mail müller@web.de, info@müller.de", "mail [EMAIL], [EMAIL]"),
        ("密钥AKIAIOSFODNN7EXAMPLE。", "密钥[KEY]。"),
        (f"before\n{KEY}\nbehind", "before\n[KEY]\nbehind"),
        (f"before\n{KEY[:54]}\nbehind", "before\n[KEY]\nbehind"),
        ("sk-" + "a" * 30 + "-" + "b" * 250, "[KEY]"),
        ("IBAN BE68 5390 0754 7034 THANKS", "IBAN [IBAN] THANKS"),
        ("call +1 650 253 0000 2024-05-01", "call [PHONE] 2024-05-01"),
        ("call +1 650 253 0000 / +1 650 253 0001", "call [PHONE] / [PHONE]"),
    ],
)
def test_no_part_of_a_secret_is_left(text, expected):
    pytest.importorskip("phonenumbers")
    assert Pii().mask(pl.Series([text])).to_list() == [expected]


def test_what_no_text_of_the_prompt_or_the_answer_says_is_found_in_a_chat(rows, check):
    call = {"id": "1", "type": "function", "function": {"name": "send", "arguments": '{"to": "a@b.org"}'}}
    asked, answered = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "done"}
    pool = rows(
        [
            {"messages": [asked, answered, {"role": "user", "content": "mail a@b.org"}]},
            {"messages": [asked, answered | {"tool_calls": [call]}]},
            {"messages": [asked, answered]},
        ]
    )
    assert check(Pii(kinds=("email",)), pool).is_masked.tolist() == [True, True, False]


def test_an_unknown_region_is_refused(rows, check):
    pytest.importorskip("phonenumbers")
    with pytest.raises(SettingsError, match="region must be an ISO 3166 code.*got 'us'; did you mean 'US'"):
        check(Pii(region="us"), rows({"text": ["call (650) 253-0000 today"]}))


def test_a_national_number_needs_a_region(rows, check):
    pytest.importorskip("phonenumbers")
    pool = rows({"text": ["call (650) 253-0000 today"]})
    assert check(Pii(action="report"), pool).explanation[0] is None
    assert check(Pii(action="report", region="US"), pool).explanation[0] == "holds 1 phone"


def test_checksums():
    assert is_card("4111-1111-1111-1111")
    assert is_card("378282246310005")
    assert not is_card("4111111111111112")
    assert not is_card("0000 0000 0000 0000")
    assert is_iban("GB82 WEST 1234 5698 7654 32")
    assert not is_iban("GB82 WEST 1234 5698 7654 33")


def test_hostile_text_costs_no_more_than_its_length(rows, check):
    pytest.importorskip("phonenumbers")
    texts = ["a" * 20_000 + "@", "1-" * 20_000, "." * 20_000, "a@" + "a." * 20_000, "+1 " * 10_000, ":" * 20_000]
    assert not check(Pii(action="drop"), rows({"text": texts})).is_dropped[[0, 2, 5]].any()


IBAN, CARD = "DE89370400440532013000", 4111111111111111


def mask_call(arguments, **more):
    call = {"id": "+1 call_1", "type": "function", "function": {"name": "send", "arguments": arguments}}
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    settings = {"pii": {"kinds": ("email", "iban", "credit-card"), **more}}
    curated = thresher.curate([{"messages": messages}, *PLAIN], rules=["pii"], settings=settings)
    return [row for row in curated.rows if row != PLAIN[0]]


PLAIN = [{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"from": "a@b.org", "name": "c@b.org", "id": IBAN, "type": "x", "role": "a@b.org"},
            {"from": "[EMAIL]", "name": "[EMAIL]", "id": "[IBAN]", "type": "x", "role": "[EMAIL]"},
        ),
        ({"tool_call_id": ["a@b.org"], "n": 1}, {"tool_call_id": ["[EMAIL]"], "n": 1}),
        ({"card": CARD, "is": True}, {"card": "[CREDIT-CARD]", "is": True}),
        ({"a@b.org": 1, "c@b.org": 2}, {"[EMAIL]": 1, "[EMAIL]+": 2}),
        (f'{{"card": {CARD}, "n": 1.50}}', '{"card": "[CREDIT-CARD]", "n": 1.5}'),
        ('{"inner": "{\\"to\\": [\\"a@b.org\\"]}"}', '{"inner": "{\\"to\\": [\\"[EMAIL]\\"]}"}'),
        (r'{"to": "a\u0040b.org"}', '{"to": "[EMAIL]"}'),
        ('{"to": "a@b.org", "to": "x"}', '{"to": "[EMAIL]", "to": "x"}'),
        ("send(a@b.org", "send([EMAIL]"),
    ],
)
def test_a_mask_reaches_everything_below_the_arguments_of_a_call(arguments, expected):
    (row,) = mask_call(arguments)
    call = row["messages"][1]["tool_calls"][0]
    assert call["function"]["arguments"] == expected
    assert (call["id"], call["type"], call["function"]["name"]) == ("+1 call_1", "function", "send")
    assert mask_call(arguments, action="drop") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"card": {CARD}, "share": 0.4111111111111111}}', '{"card": "[CREDIT-CARD]", "share": 0.4111111111111111}'),
        ('[{"name": "a@b.org", "id": "c@b.org"}]', '[{"name": "[EMAIL]", "id": "[EMAIL]"}]'),
        ('{"ok":   "nothing"}', '{"ok":   "nothing"}'),
    ],
)
def test_a_masked_answer_in_json_is_json_again(text, expected):
    settings = {"pii": {"kinds": ("email", "credit-card")}}
    for row in ({"prompt": "say", "completion": text}, {"text": text}):
        curated = thresher.curate([row], rules=["pii"], settings=settings)
        assert list(curated.rows[0].values())[-1] == expected
        assert curated.manifest.content["counts"]["masked"] == int(text != expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"card": CARD}, {"card": "[CREDIT-CARD]"}), ({"anna@acme.com": 1}, {"[EMAIL]": 1})],
)
def test_what_a_typed_column_cannot_hold_is_written_as_json_text(tmp_path, arguments, expected):
    rows = [
        {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": "ok", "tool_calls": calls}]}
        for calls in (
            [{"function": {"name": "pay", "arguments": arguments}}],
            [{"function": {"name": "pay", "arguments": {"n": 2}}}],
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    settings = {"pii": {"kinds": ("credit-card", "email")}}
    curated = thresher.curate(tmp_path / "rows.parquet", rules=["pii"], settings=settings, out=tmp_path / "out")
    assert curated.manifest.content["counts"]["masked"] == 1
    written = tmp_path / "out" / "rows.parquet"
    table = pq.read_table(written)
    assert [
        json.loads(text)[1]["tool_calls"][0]["function"]["arguments"] for text in table["messages"].to_pylist()
    ] == [
        expected,
        {"n": 2},
    ]
    assert "anna" not in str(table.schema) + str(curated.rows)
    assert b"anna" not in written.read_bytes()
    again = thresher.load(written)
    assert (len(again), again.kind) == (2, "sft")


def test_tables_of_one_layout_stay_tables_and_datasets_reads_them(tmp_path):
    kind = pa.struct({"who@acme.com": pa.int64(), "n": pa.int64()})
    kind = pa.list_(pa.struct({"function": pa.struct({"name": pa.string(), "arguments": kind})}))
    turn = pa.struct({"role": pa.string(), "content": pa.string(), "tool_calls": kind})
    features = {"messages": {"_type": "Json"}, "n": {"dtype": "int64", "_type": "Value"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema({"messages": pa.list_(turn), "n": pa.int64()}).with_metadata(metadata)
    for n, arguments in enumerate(({"who@acme.com": 1}, {"n": 2})):
        call = {"function": {"name": "pay", "arguments": arguments}}
        turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "ok", "tool_calls": [call]}]
        pq.write_table(pa.Table.from_pylist([{"messages": turns, "n": n}], schema), tmp_path / f"{n}.parquet")
    settings = {"pii": {"kinds": ("email",)}}
    curated = thresher.curate(str(tmp_path / "*.parquet"), rules=["pii"], settings=settings, out=tmp_path / "out")
    assert "acme" not in str(curated.rows)
    table = pq.read_table(tmp_path / "out" / "rows.parquet")
    assert "acme" not in str(table.schema) + str(table.to_pylist())
    found = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert found == features | {"messages": {"dtype": "large_string", "_type": "Value"}}


def test_what_is_nested_too_deep_is_text():
    text = "[" * 500 + '"a@b.org"' + "]" * 500
    for row in ({"prompt": "say", "completion": text}, {"text": text}):
        for action, expected in (("mask", text.replace("a@b.org", "[EMAIL]")), ("report", text), ("drop", None)):
            pool = [row, {**row, list(row)[-1]: "fine"}]
            curated = thresher.curate(pool, rules=["pii"], settings={"pii": {"kinds": ("email",), "action": action}})
            assert [list(each.values())[-1] for each in curated.rows] == [each for each in (expected, "fine") if each]


def test_objects_that_are_nested_too_deep_are_masked_as_text():
    deep = functools.reduce(lambda inner, _: [inner], range(600), "a@b.org")
    assert "a@b.org" not in str(_map_column([{"role": "user", "content": "go", "x": deep}], hide))
    chain = "a@b.org"
    for _ in range(2):  # text in text adds to the levels
        chain = "[" * 250 + json.dumps(chain) + "]" * 250
    assert "a@b.org" not in _map_column(chain, hide)


def hide(text):
    return text.replace("a@b.org", "[EMAIL]")
