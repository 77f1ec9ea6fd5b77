import pytest

from thresher.dataset import load
from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.experiments.experiment import prepare_experiment
from thresher.trainer.settings import TrainSettings

ROWS = [{"text": f"the {thing} is {number}", "label": thing} for number in range(6) for thing in ("sky", "leaf")]


def experiment(pool, test, **options):
    given = {"model": None, "settings": TrainSettings(), "metric": None}
    return prepare_experiment(load(pool), eval=load(test), **(given | options))


def test_training_may_not_choose_its_weights_by_the_test_rows():
    with pytest.raises(SettingsError, match="early_stopping_patience chooses weights by the held-out rows"):
        experiment(ROWS[:8], ROWS[8:], settings=TrainSettings(early_stopping_patience=1))


def test_one_test_row_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match="at least 2 test rows"):
        experiment(ROWS[:8], ROWS[8:9])


def test_a_pool_of_which_every_row_is_dropped_is_refused():
    with pytest.raises(InputError, match="needs rows to choose from"):
        experiment(ROWS[:4], ROWS, overlap="drop")


def test_one_generated_answer_has_no_spread_and_is_refused():
    talks = [{"instruction": f"say {number}", "output": str(number)} for number in range(6)]
    with pytest.raises(InputError, match="eval_generations to 2 or more"):
        experiment(talks[:3], talks[3:], metric="exact_match", settings=TrainSettings(eval_generations=1))


def questions(n, prefix="", end=""):
    return [
        {"prompt": f"{prefix}Name the lake of Ruritania{i}, in one word{end}", "completion": f"Lake{i}"}
        for i in range(n)
    ]


def test_questions_of_the_pool_are_refused_with_their_rows_or_dropped_with_a_note():
    pool, test = questions(60, prefix="Be brief. "), questions(20, end=".")
    with pytest.raises(InputError, match=r"found 20 of 20 there \(.*:\d+ is .*:\d+, .* and 17 more\).*--overlap drop"):
        experiment(pool, test)
    notes = []
    kept = experiment(pool, test, overlap="drop", model="tiny", on_progress=notes.append)
    assert len(kept.pool) == 40
    assert notes[0].note.startswith("20 rows of the pool left out, as a test row asks the same (")


def of_sources(n, n_sources):
    return [{"text": f"the sky is {i}", "label": ["sky", "leaf"][i % 2], "by": f"s{i % n_sources}"} for i in range(n)]


def test_whole_groups_are_held_out_and_named():
    notes = []
    held = prepare_experiment(
        load(of_sources(60, 6)), eval="30%", eval_by="by", model=None, settings=TrainSettings(), metric=None,
        on_progress=notes.append,
    )  # fmt: skip
    groups = set(held.test.column("by"))
    assert groups == set(held.held_out_groups)
    assert len(groups) == 2  # 30 % of 6
    assert not groups & set(held.pool.column("by"))
    assert len(held.pool) + len(held.test) == 60
    assert notes[-1].note.startswith("2 groups of by are held out, with 20 rows: ")


@pytest.mark.parametrize(
    ("rows", "options", "error", "words"),
    [
        (of_sources(20, 1), {"eval": "30%"}, InputError, "eval_by: by must have at least 2 values"),
        (of_sources(20, 4), {"eval": load(of_sources(20, 4))}, InputError, "eval_by: holds out groups of the pool"),
        ([{"text": "a b", "label": "c"}] * 4, {"eval": "30%"}, NotFoundError, "by"),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(rows, options, error, words):
    with pytest.raises(error, match=words):
        prepare_experiment(load(rows), eval_by="by", model=None, settings=TrainSettings(), metric=None, **options)


def test_no_answers_are_written_where_the_loss_is_compared():
    talks = [{"instruction": f"say {number}", "output": str(number)} for number in range(6)]
    assert experiment(talks[:3], talks[3:], metric="loss", model="tiny").settings.eval_generations == 0
    assert experiment(talks[:3], talks[3:], metric="chrf", model="tiny").settings.eval_generations == 100


def test_rows_that_share_a_template_with_test_rows_are_not_lost_in_a_small_cell():
    rows = [{"prompt": "Give one word of your own.", "completion": f"word{i}"} for i in range(60)]
    held = experiment(rows[:40], [rows[40], {"prompt": "Say yes.", "completion": "yes"}], model="tiny")
    assert len(held.pool) == 40
    assert len(held.build_context(held.pool.take([0]), seed=0).split.train) == 1
