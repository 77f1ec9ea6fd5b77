import pytest

from thresher.dataset import load
from thresher.errors import InputError
from thresher.trainer.split import parse_share, sample_by_hash, sample_rows, split_rows


@pytest.fixture
def pool():
    return load([{"text": f"text {number}", "label": str(number % 2)} for number in range(200)])


def ids(rows):
    return set(rows.frame["row_id"])


@pytest.mark.parametrize(
    ("value", "share"), [("5%", 0.05), (0.25, 0.25), ("dev.jsonl", None), (None, None), ("x%", None)]
)
def test_shares_are_told_from_paths(value, share):
    assert parse_share(value) == share


@pytest.mark.parametrize("value", ["0%", "100%", "-3%", 1.5, 0.0])
def test_a_share_of_nothing_or_all_is_refused(value):
    with pytest.raises(InputError, match="between 0% and 100%"):
        parse_share(value)


def test_the_sample_does_not_depend_on_the_order_and_hardly_on_new_rows(pool):
    def sample_ids(rows):
        return set(rows.frame["row_id"].filter(sample_by_hash(rows.frame["row_id"], 0.1, seed=0)))

    first = sample_ids(pool)
    assert len(first) == 20
    assert sample_ids(pool.take(range(199, -1, -1))) == first
    assert len(sample_ids(pool.take(range(190))) & first) >= 17
    other = sample_by_hash(pool.frame["row_id"], 0.1, seed=1)
    assert set(pool.frame["row_id"].filter(other)) != first


def test_training_and_held_out_rows_share_no_row(pool):
    parts = split_rows(pool, pool=None, held_out=0.1, seed=0, control=False)
    assert len(parts.held_out) == parts.n_held_out == 20
    assert ids(parts.train) | ids(parts.held_out) == ids(pool)
    assert not ids(parts.train) & ids(parts.held_out)


def test_with_a_pool_the_held_out_rows_come_from_the_pool(pool):
    chosen = pool.take(range(50))
    parts = split_rows(chosen, pool=pool, held_out=0.1, seed=0, control=True)
    assert len(parts.held_out) == 20
    assert len(parts.train) + parts.n_held_out == 50
    assert not ids(parts.held_out) & (ids(parts.train) | ids(parts.control))


def test_a_text_that_is_held_out_is_not_learned_whatever_its_label(pool):
    held_out = load([{"text": "text 3", "label": "0"}, {"text": "elsewhere", "label": "1"}])
    parts = split_rows(pool, pool=pool, held_out=held_out, seed=0, control=True)
    assert parts.n_leaked == 1
    assert ":4 is " in parts.leaks
    assert "text 3" not in set(parts.train.frame["prompt"]) | set(parts.control.frame["prompt"])


def test_nothing_left_to_learn_is_refused(pool):
    with pytest.raises(InputError, match="all 200 rows are among the held-out rows"):
        split_rows(pool, pool=None, held_out=pool, seed=0, control=False)


def test_random_rows_do_not_repeat_and_depend_on_the_seed_alone(pool):
    sampled = sample_rows(pool, 30, seed=1)
    assert len(ids(sampled)) == 30
    assert (
        ids(sample_rows(pool.take(range(199, -1, -1)), 30, seed=1))
        == ids(sampled)
        != ids(sample_rows(pool, 30, seed=2))
    )


def test_a_pool_with_too_few_rows_is_refused(pool):
    with pytest.raises(InputError, match="needs 150 random rows, found 100 in the pool"):
        split_rows(
            pool.take(range(150)), pool=pool.take(range(100)), held_out=pool.take(range(190, 200)), seed=0, control=True
        )
