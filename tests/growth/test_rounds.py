"""Rounds of growing: kept while held-out rows say so, and told what each brought."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy import stats

import thresher as th
from tests.growth.growth_rows import is_lucky, make_sums, read_sum
from thresher.cli.main import main
from thresher.errors import SettingsError
from thresher.experiments.grown import rounds
from thresher.experiments.grown.rounds import grow_rounds
from thresher.growth.settings import GrowSettings
from thresher.models.settings import ModelSettings


@pytest.fixture
def files(tmp_path):
    """Return files of rows to grow from, and of others to judge by."""
    sums = make_sums(40)
    for name, own in (("train", sums[:8]), ("test", sums[20:40])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return tmp_path


def write_half(stub):
    def reply(body, number):
        total = read_sum(body) if is_lucky(body, 0.5) else -1
        return stub.format_reply(f"Sum {body['seed'] % 7}: #### {total}")

    stub.reply = reply


def test_a_round_that_is_no_better_ends_the_growing(stub, files, tiny_llama, capsys):
    write_half(stub)
    command = ["grow", str(files / "train.jsonl"), "--eval", str(files / "test.jsonl"), "--rounds", "2"]
    command += ["--model", f"{stub.url}#tiny", "--base", str(tiny_llama), "--n-samples", "2", "--encoder", "static"]
    for pair in ("max_steps=1", "precision=fp32", "eval_generations=0", "learning_rate=1e-6"):
        command += ["--train", pair]
    assert main([*command, "--out", str(files / "out"), "--json"]) == 0
    out = capsys.readouterr()
    content = json.loads(out.out)
    first = content["rounds"][0]
    assert not first["is_kept"]
    assert first["kept_rows"] > 0
    assert first["facts"]["pass_at_2"] >= first["facts"]["pass_at_1"]
    assert "0 of 1 rounds kept, with 0 rows; it stopped after round 1: not clearly better than without it" in out.err
    again = th.open(files / "out")
    assert again.rows == []
    assert again.rounds == content["rounds"]
    n_calls = len(stub.bodies) if hasattr(stub, "bodies") else None
    assert main([*command, "--out", str(files / "out"), "--json"]) == 0  # read back
    assert n_calls is None or len(stub.bodies) == n_calls


def test_rounds_go_on_by_the_adapter_of_the_round_before(stub, files, monkeypatch, tmp_path):
    write_half(stub)
    trained = []

    def train(rows, *, model, eval, control, out, settings):
        out.mkdir(parents=True)
        trained.append((len(rows), settings.max_steps))
        loss = [1.0 - 0.3 * min(len(trained), 3) + 0.001 * i for i in range(20)]
        pl.DataFrame({"loss": loss}).write_parquet(out / "predictions.parquet")
        return SimpleNamespace(path=out, metrics={"n_steps": 7})

    def compare(ours, theirs):
        gap = ours[0]["loss"].mean() - theirs[0]["loss"].mean()
        estimate = SimpleNamespace(value=-gap, low=-gap - 0.02, high=-gap + 0.02, direction=int(gap < -0.02))
        return SimpleNamespace(
            metric="loss",
            is_higher_better=False,
            ours=SimpleNamespace(value=ours[0]["loss"].mean()),
            gain=estimate,
        )

    asked = []
    real = rounds.grow

    def grow(rows, *, model, **options):
        asked.append(model)
        return real(rows, model=f"{stub.url}#tiny", **options)

    monkeypatch.setattr(rounds, "train", train)
    monkeypatch.setattr(rounds, "compare", compare)
    monkeypatch.setattr(rounds, "grow", grow)
    result = grow_rounds(
        files / "train.jsonl",
        eval=files / "test.jsonl",
        rounds=4,
        out=tmp_path / "out",
        settings=GrowSettings(n_samples=2),
        models=ModelSettings(model=f"{stub.url}#tiny", encoder="static"),
        base="tiny",
    )
    assert [each["is_kept"] for each in result.rounds] == [True, True, False]
    assert {row["round"] for row in result.rows} == {1, 2}
    n_first = result.rounds[0]["kept_rows"]
    assert trained[0] == (8, None)
    assert trained[1] == (8 + n_first, 7)  # the same steps
    assert trained[2] == (8 + n_first + result.rounds[1]["kept_rows"], 7)
    assert asked[1].endswith("round-1/adapter")
    assert "2 of 3 rounds kept" in result.summary()
    page = th.report(tmp_path / "out").read_text()
    assert all(text in page for text in ("2 of 3 rounds kept", "--rounds 4", "not clearly better than without it"))


def test_a_way_without_rounds_is_refused(files, tiny_llama):
    with pytest.raises(SettingsError, match="numbered from 1, got round 3"):
        rounds.check_rounds(GrowSettings(round=3), 2)
    with pytest.raises(SettingsError, match="rounds must be at least 2, and how another than own"):
        grow_rounds(
            files / "train.jsonl",
            eval=files / "test.jsonl",
            rounds=2,
            out=files / "out",
            settings=GrowSettings(how="own"),
            models=ModelSettings(model=str(tiny_llama)),
        )
    assert main(["grow", str(files / "train.jsonl"), "--rounds", "2", "--out", str(files / "out")]) == 2


@pytest.mark.parametrize(("n", "is_kept"), [(4, False), (40, True)])
def test_a_round_is_judged_by_the_t_interval_over_held_out_rows(tmp_path, n, is_kept):
    """The mean is over 1.96 standard errors from zero: too few for t with four rows."""
    sides = []
    for name in ("after", "before"):
        gap = np.tile([-0.2, -0.2, -0.2, 0.0], n // 4) if name == "after" else np.zeros(n)
        loss = 1.0 + np.linspace(0, 1, n) + gap
        (tmp_path / name).mkdir()
        table = {"row_id": [str(i) for i in range(n)], "loss": loss, "n_tokens": [1] * n}
        pl.DataFrame(table).write_parquet(tmp_path / name / "predictions.parquet")
        sides.append(SimpleNamespace(path=tmp_path / name))
    entry = rounds._compare_adapters(*sides)
    shift = np.tile([-0.2, -0.2, -0.2, 0.0], n // 4)
    reach = stats.t.ppf(0.975, n - 1) * shift.std(ddof=1) / np.sqrt(n)
    assert shift.mean() + 1.96 * shift.std(ddof=1) / np.sqrt(n) < 0
    assert entry["high"] == pytest.approx(shift.mean() + reach, abs=1e-9)
    assert entry["is_kept"] is is_kept
