"""`select` with a pilot that trains: what it refuses, what it tells first, what the subset says."""

import pytest

import thresher as th
from tests.experiments.advice.test_pilot import questions
from thresher.errors import InputError, OutputError
from thresher.experiments.advice import choose
from thresher.jobs.settings import Select

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.timeout(300)
def test_the_method_that_trainings_decide_on_chooses_the_rows(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("thresher.experiments.advice.pilot.SEEDS", 2)
    monkeypatch.setattr("thresher.experiments.advice.pilot.STEPS", 1)
    monkeypatch.setattr(choose, "WORKERS", 1)
    notes = []
    call = {"budget": 8, "pilot": "train", "model": str(tiny_llama), "encoder": "static", "out": tmp_path / "out"}
    rows = questions(80)
    subset = th.select(rows, on_progress=lambda event: notes.append(event.note), **call)
    record = subset.manifest.content["trained_pilot"]
    assert {arm["method"] for arm in record["arms"]} == {"facility-location", "k-center", "length"}
    assert subset.manifest.content["method"] == record["chosen"].split()[0]
    assert next(note for note in notes if note).startswith("pilot: 8 short trainings, about ")
    assert list(subset.kept) == list(th.select(rows, record["chosen"], budget=8, encoder="static").kept)
    assert "How training runs chose the method" in th.report(subset.path).read_text()
    again = th.select(rows, **call)
    assert list(again.kept) == list(subset.kept)
    with pytest.raises(OutputError):  # no training decided on that choice
        th.select(rows, record["chosen"], **{**call, "pilot": "none"})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "k-center"}, "decides on the method, got also 'k-center'"),
        ({"settings": {"metric": "macro-f1"}}, "leave --set, --by and --quota out"),
        ({"quota": "label=sqrt"}, "leave --set, --by and --quota out"),
        ({"budget": "200ktok"}, "needs a number of rows or a share as the budget, got 200ktok"),
        ({"engine": "ray"}, "leave --engine out"),
        ({"address": "auto"}, "leave --address and --partitions out"),
        ({"partitions": 2}, "leave --address and --partitions out"),
        ({"existing": questions(5)}, "leave --existing out"),
    ],
)
def test_what_leaves_a_pilot_nothing_to_decide_is_refused(options, text):
    with pytest.raises(InputError, match=text):
        th.select(questions(60), **{"budget": 8, "pilot": "train", **options})


def test_a_plan_and_a_job_refuse_a_pilot_in_one_sentence():
    with pytest.raises(InputError, match="pilot: only thresher select and th.select train"):
        th.plan(questions(60), budget=8, pilot="train")
    with pytest.raises(ValueError, match="pilot trains models, which a job does not do"):
        Select(pilot="train")
