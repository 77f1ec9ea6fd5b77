import pytest

from thresher.dataset import load
from thresher.errors import InputError, SettingsError
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
    assert notes[0].note.startswith("20 rows of the pool ask what a test row asks, and are left out (")
