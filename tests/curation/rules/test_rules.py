"""Each rule that judges rows one by one, or beside an evaluation set."""

import numpy as np
import polars as pl
import pytest

from thresher.curation.rules.confidence import Confidence
from thresher.curation.rules.conflicts import Conflicts
from thresher.curation.rules.contamination import Contamination
from thresher.curation.rules.expression import Expression
from thresher.curation.rules.label_issues import LabelIssues
from thresher.curation.rules.language import Language
from thresher.curation.rules.length import Length
from thresher.curation.rules.repetition import Repetition
from thresher.errors import InputError, NotFoundError, SettingsError

LONG = "the quick brown fox jumps over the lazy dog and runs far away from the hungry wolf at night"


def gone(verdict):
    return verdict.is_dropped.tolist()


# Contamination


def test_an_evaluation_row_in_the_pool_is_dropped_and_named(rows, check):
    pool = rows({"text": ["The Question?", "another text", f"before {LONG} behind", LONG[:60]]})
    test = rows({"id": ["q0", "q1"], "text": ["the question", LONG]})
    verdict = check(Contamination(), pool, eval=test)
    assert verdict.reason.to_list() == ["leak", None, "n-gram-leak", "n-gram-leak"]
    assert verdict.duplicate_of.to_list() == ["q0", None, "q1", "q1"]
    assert verdict.duplicate_in.drop_nulls().unique().to_list() == ["eval"]
    assert verdict.notes["evaluation_rows_found"] == 2


def test_the_overlap_is_that_of_brute_force(rows, check):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    ours = [" ".join(rng.choice(words, 15)) for _ in range(40)]
    theirs = [" ".join(rng.choice(words, 12)) for _ in range(30)]

    def grams(text):
        parts = text.split()
        return {tuple(parts[i : i + 2]) for i in range(len(parts) - 1)}

    best = [max(len(grams(a) & grams(b)) / min(len(grams(a)), len(grams(b))) for b in theirs) for a in ours]
    verdict = check(Contamination(n_gram=2, overlap=0.3), rows({"text": ours}), eval=rows({"text": theirs}))
    assert gone(verdict) == [value >= 0.3 for value in best]
    assert 0 < sum(gone(verdict)) < 40
    for similarity, value in zip(verdict.similarity, best, strict=True):
        assert similarity is None or similarity == pytest.approx(value, abs=1e-6)


def test_a_paraphrase_is_found_by_its_cosine_only_when_asked(rows, check):
    pool = rows({"text": ["one thing", "other thing"]}, embedding=np.eye(2, dtype=np.float32))
    test = rows({"text": ["said otherwise"]}, embedding=np.array([[1.0, 0.1]], np.float32))
    assert Contamination().requirements.features == frozenset()
    assert gone(check(Contamination(), pool, eval=test)) == [False, False]
    asked = Contamination(cosine=0.9)
    assert asked.requirements.features == asked.requirements.side_features["eval"] == frozenset({"embedding"})
    assert check(asked, pool, eval=test).reason.to_list() == ["semantic-leak", None]


def test_a_label_in_common_is_no_leak(rows, check):
    pool = rows({"text": ["a text"], "label": ["greeting"]})
    test = rows({"text": ["another one"], "label": ["greeting"]})
    assert gone(check(Contamination(scope="row"), pool, eval=test)) == [False]


def test_a_system_prompt_in_common_is_no_leak(rows, check):
    system = "you are a helpful assistant who answers as well as it can and says so when it does not know"

    def chats(names, n):
        words = [[f"{name}{i}w{k}" for k in range(12)] for name, i in ((names, i) for i in range(n))]
        turns = [
            [
                {"role": "system", "content": system},
                {"role": "user", "content": " ".join(each)},
                {"role": "assistant", "content": "fine"},
            ]
            for each in words
        ]
        return [{"messages": each} for each in turns]

    test = chats("test", 30)
    leak = [{"messages": [*test[3]["messages"][:1], {"role": "user", "content": _asked(test[3]) + " x" * 9}]}]
    leak[0]["messages"].append({"role": "assistant", "content": "well"})
    for n_test in (4, 30):
        verdict = check(Contamination(), rows(chats("pool", 5) + leak), eval=rows(test[:n_test]))
        assert gone(verdict) == [False] * 5 + [True]
        assert verdict.similarity[5] > 0.5


def _asked(row):
    return row["messages"][1]["content"]


# Length, language


def test_limits_are_inclusive_and_say_what_was_found(rows, check):
    pool = rows({"text": ["one", "one two", "one two three", "one two three four"]}, length=[1, 2, 3, 40])
    verdict = check(Length(min_words=2, max_words=3), pool)
    assert verdict.reason.to_list() == ["too-short", None, None, "too-long"]
    assert verdict.explanation[0] == "has 1 words, at least 2 are allowed"
    assert gone(check(Length(max_tokens=3), pool)) == [False, False, False, True]
    assert gone(check(Length(max_characters=3), pool)) == [False, True, True, True]
    assert Length(max_words=3).requirements.features == frozenset()


def test_limits_that_exclude_everything_or_nothing_are_refused():
    with pytest.raises(SettingsError, match="at least one limit"):
        Length()
    with pytest.raises(SettingsError, match="min_words must not be above max_words, got 5 and 2"):
        Length(min_words=5, max_words=2)


def test_rows_in_another_language_are_dropped_when_it_is_sure(rows, check):
    pytest.importorskip("py3langid")
    texts = [
        "This is a plain English sentence about the weather of today.",
        "Dies ist ein ganz gewöhnlicher deutscher Satz über das heutige Wetter.",
        "Ceci est une phrase française tout à fait ordinaire sur le temps.",
        "ja",
    ]
    assert gone(check(Language(), rows({"text": texts}))) == [False, True, True, False]
    assert gone(check(Language(languages=("en", "de")), rows({"text": texts}))) == [False, False, True, False]
    with pytest.raises(SettingsError, match="ISO 639-1 codes, got 'english'"):
        check(Language(languages=("english",)), rows({"text": texts}))


# Repetition


def test_gram_shares_are_those_of_a_slow_count():
    from thresher.curation.rules.repetition import _measure_grams

    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(["aa", "b", "cccc", "dd", "e"], 70)) for _ in range(20)]
    measured = _measure_grams(pl.Series(texts))
    for text, shares in zip(texts, measured, strict=True):
        words = text.split()
        total = sum(map(len, words))
        for i, n in enumerate((2, 3, 4)):
            grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
            best = max(grams.count(gram) for gram in set(grams))
            sizes = [sum(map(len, gram)) for gram in set(grams) if grams.count(gram) == best]
            expected = best * max(sizes) / total if best > 1 else shares[i]
            assert shares[i] == pytest.approx(expected)
        for i, n in enumerate(range(5, 11)):
            grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
            covered = {k + j for k, gram in enumerate(grams) if gram in grams[:k] for j in range(n)}
            assert shares[3 + i] == pytest.approx(sum(len(words[k]) for k in covered) / total)


def test_rows_that_repeat_themselves_are_dropped_and_prose_stays(rows, check):
    rng = np.random.default_rng(6)
    prose = " ".join("".join(rng.choice(list("abcdefghij"), rng.integers(3, 9))) for _ in range(80))
    texts = [
        prose,
        "buy now and save money today " * 20,
        "\n".join(["the very same line again"] * 12),
        " ".join(["12345"] * 40 + prose.split()[:20]),
        "I think that, as an AI language model, I cannot.",
        "short short short",
    ]
    verdict = check(Repetition(), rows({"text": texts}))
    assert verdict.reason[0] is None, verdict.explanation[0]
    assert verdict.reason[1] == verdict.reason[2] == "repetition"
    assert verdict.reason[3] is not None
    assert verdict.reason[4] == "boilerplate"
    assert verdict.reason[5] is None
    assert gone(check(Repetition(phrases=()), rows({"text": texts[4:]}))) == [False, False]


def test_a_limit_of_one_switches_a_test_of_repetition_off(rows, check):
    texts = ["word " * 100, "one two three four " * 30]
    off = {f"{name}": 1.0 for name in ("top_gram", "repeated_gram")}
    assert gone(check(Repetition(), rows({"text": texts}))) == [True, True]
    assert gone(check(Repetition(**off), rows({"text": texts}))) == [False, False]


def test_words_without_a_letter_are_counted_once_each():
    from thresher.curation.rules.repetition import _measure_words

    assert _measure_words(pl.Series(["1 2 3 four"]))["letterless"][0] == pytest.approx(0.75)
    assert _measure_words(pl.Series(["it's co-op 3rd 99"]))["letterless"][0] == pytest.approx(0.25)


# Conflicts


def test_the_label_of_the_majority_stays(rows, check):
    columns = {"text": ["same", "Same", " same", "tie", "tie", "alone"], "label": ["a", "b", "a", "a", "b", "a"]}
    pool = rows(columns)
    assert gone(check(Conflicts(), pool)) == [False, True, False, True, True, False]
    assert gone(check(Conflicts(keep="first"), pool)) == [False, True, False, False, True, False]
    assert gone(check(Conflicts(keep="none"), pool)) == [True, True, True, True, True, False]
    verdict = check(Conflicts(), pool)
    assert verdict.cluster.null_count() == 1
    assert verdict.explanation[1] == "1 of the 3 rows with this prompt have this answer, the others have another"


def test_an_existing_row_decides_a_conflict(rows, check):
    pool = rows({"text": ["same", "same", "same"], "label": ["b", "b", "a"]})
    existing = rows({"text": ["same"], "label": ["a"]})
    assert gone(check(Conflicts(), pool, existing=existing)) == [True, True, False]


def test_long_answers_to_one_prompt_may_differ(rows, check):
    long = " ".join(["word"] * 30)
    pool = rows({"prompt": ["q", "q", "r", "r"], "response": [long, long + " more", "4", "5"]})
    verdict = check(Conflicts(), pool)
    assert gone(verdict) == [False, False, True, True]
    assert verdict.notes["rows_with_long_answers_not_judged"] == 2


def test_rows_of_text_have_no_conflicts(rows, check):
    with pytest.raises(InputError, match="conflicts: rows need a prompt and a response"):
        check(Conflicts(), rows({"text": ["a"]}))


# Expression


def test_a_condition_keeps_rows_for_which_it_is_true(rows, check):
    pool = rows({"text": ["aa", "bbbb", "cc"], "stars": [5, 2, None]})
    verdict = check(Expression(where="stars >= 3 AND LENGTH(text) < 4"), pool)
    assert verdict.reason.to_list() == [None, "condition", "no-value"]
    assert verdict.explanation[1] == "does not satisfy: stars >= 3 AND LENGTH(text) < 4"
    assert gone(check(Expression(where="response LIKE 'b%'"), pool)) == [True, False, True]
    assert gone(check(Expression(where="TRUE"), pool)) == [False] * 3


@pytest.mark.parametrize(
    "where",
    [
        "stars IN (SELECT stars FROM read_csv('/etc/passwd'))",
        "EXISTS (select 1)",
        "read_parquet('x') > 1",
        "__import__('os').system('true')",
        "stars >= ; drop",
        "stars > 1 -- '\n AND stars IN (SELECT a FROM read_csv('/etc/passwd')) --'",
        "stars > 1 /* ' */ AND stars IN (SELECT a FROM read_csv('/etc/passwd')) -- '",
        "text = E'\\'' AND stars IN (SELECT a FROM read_csv(' /etc/passwd')) OR text = '",
        "LPAD(text, 3000000000, 'x') = 'x'",
        "LENGTH(REPLACE(REPLACE(text, 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa')) > 1",
        "x" * 2001,
    ],
)
def test_a_condition_reaches_nothing_but_its_row(where):
    with pytest.raises(SettingsError, match="expression: where must"):
        Expression(where=where)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("stars >= 3 AND NOT text LIKE 'x%'", [3, 4, 5, 6]),
        ("LENGTH(text || text) > 40000", [6]),
        ("stars BETWEEN 2 AND 3 OR text IS NULL", [2, 3]),
        ("stars > AVG(stars)", [4, 5, 6]),
        ("SUM(stars) OVER (PARTITION BY stars > 3) > 10", [4, 5, 6]),
        ("1 = 1", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_condition_means_the_same_of_slices_as_of_all_rows(rows, check, monkeypatch, where, kept):
    monkeypatch.setattr("thresher.curation.rules.expression._SLICE_BYTES", 64)
    pool = rows({"text": [*"abcdef", "g" * 20_001], "stars": list(range(7))})
    assert np.flatnonzero(~np.array(gone(check(Expression(where=where), pool)))).tolist() == kept


def test_words_in_quotes_are_text():
    Expression(where="text LIKE '%select from%'")


def test_a_condition_that_does_not_fit_the_columns_is_explained(rows, check):
    pool = rows({"text": ["aa"], "stars": [5]})
    with pytest.raises(NotFoundError, match="expression: column 'star' not found.*did you mean 'stars'"):
        check(Expression(where="star > 1"), pool)
    with pytest.raises(InputError, match="must be true or false, got Int64"):
        check(Expression(where="stars + 1"), pool)
    with pytest.raises(InputError, match="must fit the columns"):
        check(Expression(where="text > 1"), pool)


# Confidence and labels


def test_gamma_is_a_quantile_or_a_threshold(rows, check):
    missing = {"confidence": pl.Series([None, None, None, None, "too long"], dtype=pl.String)}
    pool = rows({"text": list("abcde")}, missing=missing, confidence=[0.1, 0.2, 0.3, 0.4, np.nan])
    assert gone(check(Confidence(), pool)) == [True, False, False, False, False]
    verdict = check(Confidence(quantile=0.5), pool)
    assert gone(verdict) == [True, True, False, False, False]
    assert verdict.explanation[4] == "has no confidence: too long"
    assert gone(check(Confidence(threshold=0.2), pool)) == [True, False, False, False, False]


@pytest.mark.parametrize("by", ["trust", "confident-learning"])
def test_rows_whose_label_is_probably_wrong_are_dropped(rows, check, by):
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]], np.float32)
    columns = {"text": list("abcde"), "label": ["x", "x", "y", "y", "x"]}
    pool = rows(columns, class_probability=probability, class_votes=np.zeros((5, 4)))
    verdict = check(LabelIssues(by=by), pool)
    assert gone(verdict) == [False] * 4 + [True]
    assert "'x' has probability 0.05" in verdict.explanation[4]
    assert ("estimate" in verdict.notes) == (by == "trust")
    assert gone(check(LabelIssues(by=by, max_probability=0.01), pool)) == [False] * 5
    assert gone(check(LabelIssues(max_trust=0.01), pool)) == [False] * 5


def test_where_wrong_labels_cannot_be_told_nothing_is_dropped_unless_asked(rows, check):
    rng = np.random.default_rng(0)
    n = 400
    given, predicted = rng.integers(0, 4, n), rng.integers(0, 4, n)
    probability = np.full((n, 4), 0.05)
    probability[np.arange(n), predicted] = 0.85
    votes = np.hstack([rng.integers(0, 4, (n, 2)), rng.normal(size=(n, 2))])
    columns = {"text": [f"row {i}" for i in range(n)], "label": [f"l{label}" for label in given]}
    pool = rows(columns, class_probability=probability, class_votes=votes)
    verdict = check(LabelIssues(), pool)
    assert not any(gone(verdict))
    assert verdict.notes["cannot_tell"].startswith("cannot tell which labels are wrong")
    assert verdict.notes["issues"] > 100
    assert sum(gone(check(LabelIssues(cannot_tell="drop"), pool))) == verdict.notes["issues"]


def test_too_few_rows_to_learn_labels_are_noted(rows, check):
    probability = np.tile(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32), (150, 1))
    texts = [f"row {number}" for number in range(300)]
    votes = np.zeros((300, 4))
    pool = rows({"text": texts, "label": ["x", "y"] * 150}, class_probability=probability, class_votes=votes)
    assert list(check(LabelIssues(), pool).notes) == ["issues"]
    few = {"class_probability": probability[:10], "class_votes": votes[:10]}
    pool = rows({"text": texts[:10], "label": ["x", "y"] * 5}, **few)
    assert check(LabelIssues(), pool).notes["few"].startswith("10 rows, 5 of them labeled 'x', are too few")


# Tools


def converse(tool, answer="It is Paris, the capital city of the country of France", calls=()):
    turns = [{"role": "user", "content": "what is the capital city of the country France"}]
    for city in calls:
        function = {"name": "look", "arguments": {"city": city}}
        turns += [{"role": "assistant", "content": "", "tool_calls": [{"id": city, "function": function}]}]
        turns += [{"role": "tool", "content": "found"}]
    row = {"messages": [*turns, {"role": "assistant", "content": answer}]}
    return row | ({"tools": [{"type": "function", "function": {"name": tool}}]} if tool else {})


def load_rows(conversations):
    import thresher as th
    from thresher.curation import Rows

    return Rows(dataset=th.load(conversations), features=None)


def test_conversations_with_other_tools_or_calls_are_no_near_duplicates(check):
    from thresher.curation.rules.near_duplicates import NearDuplicates

    cases = [converse("a"), converse("b"), converse(None), converse("a"), converse("a", calls=["x"])]
    cases += [converse("a", calls=["y"]), converse("a", calls=["x"])]
    verdict = check(NearDuplicates(), load_rows(cases))
    assert gone(verdict) == [False, False, False, True, False, False, True]
    existing = check(NearDuplicates(), load_rows(cases[1:3]), existing=load_rows(cases[:1]))
    assert gone(existing) == [False, False]


def test_answers_to_a_prompt_with_other_tools_or_calls_do_not_contradict_each_other(check):
    cases = [converse("a", "yes"), converse("b", "no"), converse(None, "maybe")]
    cases += [converse("a", "yes", calls=["x"]), converse("a", "no", calls=["y"])]
    assert not any(gone(check(Conflicts(keep="none"), load_rows(cases))))
    pair = [converse("a", "yes", calls=["x"]), converse("a", "no", calls=["x"])]
    assert gone(check(Conflicts(keep="none"), load_rows(pair))) == [True, True]
