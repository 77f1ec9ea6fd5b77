"""Vectors, probabilities and scores that people bring: read by order or by id, and checked."""

import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError
from thresher.features import compute, make_context

N = 30
LABELS = ["a", "b", "c"]


def lines(n=N):
    rng = np.random.default_rng(1)
    return [
        {
            "text": f"row {i} says {i * 7 % 11}",
            "label": LABELS[i % 3],
            "vec": rng.normal(size=4).tolist(),
            "rating": i / 7,
        }
        for i in range(n)
    ]


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)


@pytest.fixture
def pool():
    return th.load(lines())


@pytest.fixture(autouse=True)
def no_encoder(monkeypatch):
    """No encoder may be asked where the vectors are there."""

    def refuse(*args, **options):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("thresher.models.encoders.load.load_encoder", refuse)


def test_an_array_is_read_in_the_order_of_the_rows(vectors):
    pool = th.load(lines(), embeddings=vectors)
    taken = pool.take(np.array([7, 2, 19]))
    features = compute(taken, {"embedding"}, make_context())
    np.testing.assert_array_equal(features["embedding"], vectors[[7, 2, 19]])


def test_the_choice_is_that_of_the_same_vectors_in_any_form(vectors, tmp_path):
    np.save(tmp_path / "v.npy", vectors.astype(np.float64))
    np.save(tmp_path / "half.npy", vectors.astype(np.float16))
    rows = [line | {"own": vector.tolist()} for line, vector in zip(lines(), vectors, strict=True)]
    pool = th.load(rows)
    shuffle = np.random.default_rng(3).permutation(N)
    named = pl.DataFrame({"row_id": pool.frame["row_id"], "vector": vectors.tolist()})[shuffle]
    named.write_parquet(tmp_path / "v.parquet")
    wide = pl.DataFrame(vectors, schema=[f"x{i}" for i in range(5)])
    forms = [vectors, vectors.tolist(), str(tmp_path / "v.npy"), tmp_path / "v.parquet", named, wide, "own"]
    kept = [th.select(pool, "k-center", budget=6, embeddings=form).kept.tolist() for form in forms]
    assert all(each == kept[0] for each in kept)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # farthest first, by hand: each pick but the first is the row farthest from the others
    first = th.select(pool, "k-center", budget=6, embeddings=vectors, order="rank").kept
    for k in range(1, 6):
        assert first[k] == (unit @ unit[first[:k]].T).max(axis=1).argmin()


def test_lines_of_rejected_rows_are_left_out(vectors, tmp_path):
    rows = lines()
    texts = [json.dumps(row) for row in rows]
    texts[4] = json.dumps({"text": "", "label": "a"})
    texts[9] = "{broken"
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(texts))
    pool = th.load(path, embeddings=vectors)
    assert len(pool) == N - 2
    np.testing.assert_array_equal(pool.given["embedding"], np.delete(vectors, [4, 9], axis=0))
    np.testing.assert_array_equal(
        th.load(path, embeddings=np.delete(vectors, [4, 9], axis=0)).given["embedding"], pool.given["embedding"]
    )


def test_another_array_is_another_result_and_is_not_read_back(pool, vectors, tmp_path):
    first = th.select(pool, "k-center", budget=5, embeddings=vectors, out=tmp_path / "out")
    again = th.select(pool, "k-center", budget=5, embeddings=vectors, out=tmp_path / "out")
    assert again.manifest.identity == first.manifest.identity
    with pytest.raises(th.ThresherError, match="out: "):
        th.select(pool, "k-center", budget=5, embeddings=vectors[::-1], out=tmp_path / "out")
    assert first.manifest.content["features"]["embedding"]["encoder"] == "given"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v[:-1], "a line for each of the 30 usable rows, got 29"),
        (
            lambda v: np.where(np.arange(N)[:, None] == 3, np.nan, v),
            r"NaN or infinity in 1 of 30 rows \(first: row 3\)",
        ),
        (lambda v: v[:, 0], r"one line per row, got shape \(30,\)"),
        (lambda v: v.astype(str), "must be an array of numbers"),
        (lambda v: v > 0, "must be an array of numbers.* of bool"),
        (lambda v: [*v[:-1].tolist(), [1.0]], "rows of numbers of one length"),
        (lambda v: np.zeros((N, 0)), "must be an array of numbers"),
    ],
)
def test_what_does_not_fit_is_one_clear_sentence(pool, vectors, change, said):
    with pytest.raises(InputError, match=said) as caught:
        th.select(pool, "k-center", budget=5, embeddings=change(vectors))
    assert str(caught.value).startswith("embeddings")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nope", "must be a column of the rows .* or a file that ends in .npy or .parquet, got 'nope'"),
        ("no.npy", "the file 'no.npy' does not exist"),
        ("label", "column 'label' must hold a list of numbers in every row, got 'a' in row 0"),
        ("broken.npy", "cannot be read as .npy"),
        ("broken.parquet", "cannot be read as .parquet"),
        ("some.parquet", "found none for 10 of them"),
        ("twice.parquet", "each row_id must occur once"),
        ("words.parquet", "one column of lists, or numbers alone"),
    ],
)
def test_files_and_columns_that_do_not_fit_are_refused(pool, vectors, tmp_path, monkeypatch, source, said):
    monkeypatch.chdir(tmp_path)
    for name in ("broken.npy", "broken.parquet"):
        (tmp_path / name).write_bytes(b"nothing")
    ids = pool.frame["row_id"]
    pl.DataFrame({"row_id": ids[:20], "v": vectors[:20].tolist()}).write_parquet("some.parquet")
    pl.DataFrame({"row_id": pl.concat([ids[:29], ids[:1]]), "v": vectors.tolist()}).write_parquet("twice.parquet")
    pl.DataFrame({"row_id": ids, "v": ["x"] * N}).write_parquet("words.parquet")
    with pytest.raises(InputError, match=said):
        th.select(pool, "k-center", budget=5, embeddings=source)


def test_an_array_with_objects_is_never_unpickled(pool, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}] * N, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as .npy"):
        th.select(pool, "k-center", budget=5, embeddings=str(tmp_path / "objects.npy"))


def test_rows_beside_the_pool_have_vectors_by_the_same_column(pool):
    target = th.load([{"text": "near", "label": "a", "vec": lines()[5]["vec"]}])
    settings = {"kernel": "embedding"}
    subset = th.select(pool, "target-similarity", budget=1, target=target, embeddings="vec", settings=settings)
    assert subset.kept.tolist() == [5]


def test_rows_beside_the_pool_without_vectors_are_told_of(pool, vectors):
    target = th.load([{"text": "near", "label": "a"}])
    with pytest.raises(InputError, match="rows outside the pool need vectors of the same model, found none"):
        th.select(
            pool, "target-similarity", budget=1, target=target, embeddings=vectors, settings={"kernel": "embedding"}
        )


def probabilities(names=LABELS):
    p = np.random.default_rng(2).dirichlet(np.ones(len(names)), N)
    return p


def test_probabilities_are_those_of_the_labels_in_sorted_order(pool):
    p = probabilities()
    own = th.score(pool, "class_probability,confidence", pred_probs=p).frame
    np.testing.assert_allclose(np.stack(own["class_probability"].to_list()), p, rtol=1e-6)
    # equally frequent labels: two odds of the given one, against the likeliest other and all
    given, others = p[np.arange(N), np.arange(N) % 3], p.copy()
    others[np.arange(N), np.arange(N) % 3] = 0
    odds = np.sqrt(given / others.max(axis=1) * given / others.sum(axis=1))
    np.testing.assert_allclose(own["confidence"], odds / (1 + odds), rtol=1e-5)


def test_columns_named_after_the_labels_may_stand_in_any_order(pool):
    p = probabilities()
    frame = pl.DataFrame({"c": p[:, 2], "a": p[:, 0], "b": p[:, 1]})
    own = th.score(pool, "class_probability", pred_probs=frame).frame
    np.testing.assert_allclose(np.stack(own["class_probability"].to_list()), p, rtol=1e-6)


def test_rows_that_lack_a_label_have_the_probabilities_of_theirs(pool):
    p = probabilities()
    part = th.load(lines(), pred_probs=p).take(np.flatnonzero(np.arange(N) % 3 != 1))
    own = compute(part, {"class_probability"}, make_context())["class_probability"]
    expected = p[np.arange(N) % 3 != 1][:, [0, 2]]
    np.testing.assert_allclose(own, expected / expected.sum(axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p[:, :2], "a number for each of the 3 labels .*got 2"),
        (lambda p: p * 2, "at least 0 and with the sum 1"),
        (lambda p: p - 0.6, "at least 0 and with the sum 1"),
        (lambda p: np.where(np.arange(N)[:, None] == 0, np.nan, p), "NaN or infinity"),
    ],
)
def test_probabilities_that_are_none_are_refused(pool, change, said):
    with pytest.raises(InputError, match=said):
        th.score(pool, "confidence", pred_probs=change(probabilities()))


def test_probabilities_need_labels():
    with pytest.raises(InputError, match="rows need a text and a label, found rows of kind 'text'"):
        th.load([{"text": "one"}, {"text": "two"}], pred_probs=np.full((2, 2), 0.5))


def test_top_keeps_the_largest_or_smallest_numbers_of_a_column(pool, tmp_path, capsys):
    assert th.select(pool, "top", by="rating", budget=3).kept.tolist() == [27, 28, 29]
    assert th.select(pool, "top", by="rating", budget=3, settings={"order": "smallest"}).kept.tolist() == [0, 1, 2]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines())))
    assert main(["select", str(path), "--method", "top", "--by", "rating", "--budget", "2", "--quiet"]) == 0
    assert [json.loads(line)["rating"] for line in capsys.readouterr().out.splitlines()] == [28 / 7, 29 / 7]


def test_top_leaves_out_rows_without_a_number_and_says_so():
    subset = th.select(
        th.load([line | {"rating": None if i < 3 else i} for i, line in enumerate(lines())]),
        "top",
        by="rating",
        budget=28,
    )
    assert len(subset) == 27
    assert subset.dropped["explanation"].str.contains("holds no number").sum() == 3


def test_a_column_to_go_by_is_given_once_and_to_methods_that_have_one(pool):
    with pytest.raises(th.ThresherError, match="by: is given twice"):
        th.select(pool, "top", by="rating", settings={"by": "rating"}, budget=3)
    with pytest.raises(th.ThresherError, match="random: unknown setting 'by'"):
        th.select(pool, "random", by="rating", budget=3)


def test_the_command_takes_files_of_vectors(tmp_path, vectors, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines())))
    np.save(tmp_path / "v.npy", vectors)
    command = ["select", str(path), "--method", "k-center", "--budget", "3", "--embeddings", str(tmp_path / "v.npy")]
    assert main(command) == 0
    assert "encoder given" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "rows.jsonl")]) == 2


def test_columns_named_after_labels_are_read_by_name_whatever_the_table():
    pd = pytest.importorskip("pandas")
    p = np.random.default_rng(5).dirichlet(np.ones(3), N)
    columns = {"c": p[:, 2], "a": p[:, 0], "b": p[:, 1]}
    wanted = th.load(lines(), pred_probs=p).given["class_probability"]
    for table in (pl.DataFrame(columns), pd.DataFrame(columns), pd.DataFrame(p), pd.Series(list(p))):
        np.testing.assert_array_equal(th.load(lines(), pred_probs=table).given["class_probability"], wanted)
    with pytest.raises(InputError, match=r"a column for each label \(a, b, c\), got a, b, x"):
        th.load(lines(), pred_probs=pd.DataFrame({"a": p[:, 0], "x": p[:, 1], "b": p[:, 2]}))


def test_pickled_objects_are_refused_without_advice_to_load_them(pool, tmp_path):
    np.save(tmp_path / "v.npy", np.array([[1.0], None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as .npy: it holds no plain numbers"):
        th.select(pool, "k-center", budget=5, embeddings=tmp_path / "v.npy")
