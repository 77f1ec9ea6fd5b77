"""Cross-fitting: no model scores a row it has seen; nothing is trained twice, kills included."""

import json

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import compute, make_context
from thresher.features.reference_adapters import RequiredAdapter, TrainedFolder, assign_folds
from thresher.features.requirements import Requirements
from thresher.models.causal_lm.tokenized_rows import row_texts
from thresher.selection.pool_adapters import get_adapter_cache, plan_adapters, train_adapter
from thresher.selectors.learnability import Learnability

ROWS = [{"prompt": f"add {i} and 1:", "completion": f"{i + 1} " * (1 + i % 4)} for i in range(14)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def context(folder, **settings):
    return make_context(model=str(folder), device="cpu", cache=None, **settings)


def plan_one(pool, folder, *, selector=None, seed=0, **settings):
    (planned,), told = plan_adapters(selector or Learnability(), th.load(pool), context(folder, **settings), seed=seed)
    return planned, told


def test_repeats_of_a_row_lie_in_the_same_fold_whatever_their_ids():
    rows = [{"id": str(i), **ROWS[i % 7]} for i in range(21)]
    pool = th.load(rows, id_column="id")
    fold = assign_folds(row_texts(pool), 3)
    assert all((fold[i] == fold[i % 7]) for i in range(21))
    assert len(set(fold[:7])) > 1


def test_each_adapter_learns_from_the_rows_outside_its_fold_and_no_others(tiny_llama):
    planned, _ = plan_one(ROWS, tiny_llama, selector=Learnability(folds=3))
    fold = assign_folds(row_texts(planned.rows), 3)
    for number in range(3):
        assert planned.positions(number).tolist() == [i for i in range(len(ROWS)) if fold[i] != number]


def test_the_reference_loss_of_a_row_is_that_of_the_adapter_without_it(tiny_llama):
    pool = th.load(ROWS)
    planned, told = plan_one(ROWS, tiny_llama)
    train_adapter(planned)
    found = compute(pool, {"reference_loss"}, told)["reference_loss"]
    fold = assign_folds(row_texts(pool), 2)
    by_adapter = [compute(pool, {"loss"}, context(folder))["loss"] for folder in planned.folder.adapters]
    np.testing.assert_allclose(found, np.where(fold == 0, *by_adapter), atol=1e-6)
    assert np.abs(by_adapter[0] - by_adapter[1]).max() > 1e-5


def test_a_row_that_was_learned_by_one_side_only_shows_which_side(tiny_llama):
    """An adapter memorizes a row repeated in training; the cross-fitted loss stays high."""
    rows = [{"prompt": "say:", "completion": "zebra quiz"}] * 40 + ROWS
    pool = th.load(rows)
    planned, told = plan_one(rows, tiny_llama)
    train_adapter(planned)
    own = int(assign_folds(row_texts(pool), 2)[0])
    base = compute(pool, {"loss"}, context(tiny_llama))["loss"][0]
    unseen, seen = (
        compute(pool, {"loss"}, context(planned.folder.adapters[number]))["loss"][0] for number in (own, 1 - own)
    )
    assert compute(pool, {"reference_loss"}, told)["reference_loss"][0] == pytest.approx(unseen)
    assert base - seen > 3 * abs(base - unseen)


def test_select_trains_the_reference_and_a_second_call_finds_it(tiny_llama):
    notes = []
    options = {"budget": 3, "model": str(tiny_llama), "device": "cpu", "on_progress": lambda event: notes.append(event)}
    subset = th.select(ROWS, "learnability", **options)
    assert get_adapter_cache().size()[0] == 1
    first = next(event.note for event in notes if event.stage == "train reference")
    assert "trains 2 adapters" in first
    assert "1 epoch" in first
    assert "2 cross-fitted adapters on" in subset.manifest.content["features"]["reference_loss"]["model"]
    assert subset.manifest.content["depends_on_seed"]
    notes.clear()
    again = th.select(list(reversed(ROWS)), "learnability", **options)
    assert get_adapter_cache().size()[0] == 1
    assert "found in" in next(event.note for event in notes if event.stage == "train reference")
    assert set(again.dataset.frame["row_id"]) == set(subset.dataset.frame["row_id"])
    assert again.manifest.content["features"] == subset.manifest.content["features"]


def test_the_folder_is_a_legal_reference(tiny_llama):
    options = {"budget": 3, "model": str(tiny_llama), "device": "cpu"}
    trained = th.select(ROWS, "learnability", **options)
    planned, _ = plan_one(ROWS, tiny_llama)
    assert planned.folder.is_there
    given = th.select(ROWS, "learnability", settings={"reference": str(planned.folder.path)}, **options)
    np.testing.assert_array_equal(given.scores.value, trained.scores.value)


@pytest.mark.parametrize("change", [{"seed": 1}, {"loss_on": "all-assistant"}, {"max_length": 40}, {"folds": 3}, "row"])
def test_the_key_tells_of_all_that_determines_the_adapters(tiny_llama, change):
    before, _ = plan_one(ROWS, tiny_llama)
    if change == "row":
        after, _ = plan_one([*ROWS, {"prompt": "one", "completion": "more"}], tiny_llama)
    elif "folds" in change:
        after, _ = plan_one(ROWS, tiny_llama, selector=Learnability(**change))
    else:
        after, _ = plan_one(ROWS, tiny_llama, **change)
    assert after.folder.identity != before.folder.identity
    assert plan_one(ROWS[::-1], tiny_llama)[0].folder == before.folder


def test_a_killed_training_goes_on_and_gives_the_same_bytes(tiny_llama, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(event):
        if event.stage.endswith("2 of 2") and event.done == 1:
            raise KilledError

    planned, _ = plan_one(ROWS * 3, tiny_llama)
    with pytest.raises(KilledError):
        train_adapter(planned, kill)
    assert not planned.folder.is_there
    stages = []
    train_adapter(planned, lambda event: stages.append(event.stage))
    assert not any(stage.endswith("1 of 2") for stage in stages)
    went_on = [(path / "adapter_model.safetensors").read_bytes() for path in planned.folder.adapters]
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "other"))
    fresh, _ = plan_one(ROWS * 3, tiny_llama)
    train_adapter(fresh)
    assert went_on == [(path / "adapter_model.safetensors").read_bytes() for path in fresh.folder.adapters]
    assert {path.name for path in fresh.folder.path.iterdir()} == {
        "adapter-0", "adapter-1", "manifest.json", "trained.json",
    }  # fmt: skip


class WarmUp:
    name = "warm-up"
    requirements = Requirements(adapters=(RequiredAdapter(role="reference", epochs=3, share=0.5, keeps_epochs=True),))


def test_states_of_weights_and_optimizer_are_kept_after_each_epoch(tiny_llama):
    from safetensors.numpy import load_file

    planned, _ = plan_one(ROWS, tiny_llama, selector=WarmUp())
    assert planned.n_rows == [7]
    train_adapter(planned)
    states = [load_file(path) for path in planned.folder.epochs()]
    assert [path.parent.name for path in planned.folder.epochs()] == ["epoch-1", "epoch-2", "epoch-3"]
    names = {name.partition("/")[2] for name in states[0] if name.startswith("parameter/")}
    assert names
    assert {f"{kind}/{name}" for kind in ("exp_avg", "exp_avg_sq") for name in names} <= set(states[0])
    adapter = load_file(planned.folder.adapters[0] / "adapter_model.safetensors")
    last = {name.replace(".default", ""): value for name, value in states[-1].items() if name.startswith("parameter/")}
    for name, value in adapter.items():
        np.testing.assert_array_equal(last[f"parameter/{name}"], value)
    assert any((states[0][f"parameter/{name}"] != states[1][f"parameter/{name}"]).any() for name in names)


def test_classified_texts_are_learned_as_they_are_scored(tiny_llama, color_rows):
    pool = th.load(color_rows)
    planned, _ = plan_one(color_rows, tiny_llama)
    assert set(row_texts(planned.rows)) == set(row_texts(pool))
    assert planned.request.task == "sft"


def test_rows_that_are_all_the_same_are_refused(tiny_llama):
    with pytest.raises(InputError, match=r"different rows in at least 2 of 2 folds, found all 4 in one"):
        plan_one(ROWS[:1] * 4, tiny_llama)


def test_an_adapter_as_the_model_is_refused(tiny_llama, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_llama)}))
    with pytest.raises(InputError, match="is trained on a base model, got the adapter"):
        plan_one(ROWS, adapter)


def test_a_password_in_the_address_of_a_server_is_not_repeated():
    with pytest.raises(InputError, match="without a user name or password") as caught:
        plan_one(ROWS, "http://me:very-secret@127.0.0.1:9/v1")
    assert "very-secret" not in str(caught.value)


def test_a_damaged_folder_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "trained.json").write_text("{")
    with pytest.raises(th.ThresherError, match=r"trained\.json: must be JSON"):
        TrainedFolder.find(tmp_path)


def test_a_folder_of_another_format_is_refused(tmp_path):
    (tmp_path / "trained.json").write_text(json.dumps({"format": "thresher-trained/9"}))
    with pytest.raises(th.ThresherError, match="format must be 'thresher-trained/1', found 'thresher-trained/9'"):
        TrainedFolder.find(tmp_path)
