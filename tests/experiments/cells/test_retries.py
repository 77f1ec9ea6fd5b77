import pytest

from thresher.experiments.cells.cell import Outcome
from thresher.experiments.cells.retries import describe_unfinished, leave_unfinished, run_rounds


def run(n_cells, n_workers, n_failures):
    """Return the outcomes, and (workers, tries) of each round, where each cell fails so often."""
    left, rounds = dict(n_failures), []

    def run_round(plan):
        n_tries = 0
        while plan.waiting:
            n_tries += 1
            index = plan.waiting.popleft()
            is_ended = left.get(index, 0) > 0
            left[index] = left.get(index, 0) - 1
            outcome = leave_unfinished("key", "killed") if is_ended else Outcome(key="key", outcomes=None, facts={})
            if not plan.try_again(index, outcome):
                yield index, outcome
        rounds.append((plan.n_workers, n_tries))

    keys = dict.fromkeys(range(n_cells), "key")
    outcomes = list(run_rounds(None, [None] * n_cells, keys, run_round, n_workers=n_workers, on_retry=None))
    assert sorted(index for index, _ in outcomes) == list(range(n_cells))
    return [index for index, outcome in outcomes if outcome.is_unfinished], rounds


@pytest.mark.parametrize(
    ("n_workers", "n_failures", "unfinished", "rounds"),
    [
        (8, {}, [], [(8, 9)]),
        (8, {0: 2}, [], [(8, 11)]),
        (8, {0: 3}, [], [(8, 11), (1, 1)]),
        (8, {0: 99}, [0], [(8, 11), (1, 1)]),
        (8, dict.fromkeys(range(9), 99), list(range(9)), [(8, 27), (4, 9), (2, 9), (1, 9)]),
        (8, dict.fromkeys(range(6), 4), [], [(8, 21), (3, 6), (1, 6)]),
        (1, {0: 2}, [], [(1, 11)]),
        (1, {0: 3}, [0], [(1, 11)]),
    ],
)
def test_a_cell_is_tried_three_times_and_then_with_ever_fewer_workers(n_workers, n_failures, unfinished, rounds):
    assert run(9, n_workers, n_failures) == (unfinished, rounds)


def test_what_is_said_of_cells_that_were_not_finished():
    assert describe_unfinished([{"reason": "killed"}]) == (
        "a run could not be finished (killed); run the same command again to complete the result"
    )
    assert describe_unfinished([{"reason": "killed"}] * 1200).startswith("1,200 runs could")
