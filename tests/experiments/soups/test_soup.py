"""Merged adapters: the mean is exact, ties and dare are peft's, the best single one is the bar."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import thresher as th
from tests.reporting.page_commands import read_page
from thresher.cli.main import main
from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.experiments.soups.inputs import resolve_measuring
from thresher.experiments.soups.plan import plan_soup
from thresher.trainer.adapter import Adapter
from thresher.trainer.engine.adapters.merging import merge_adapters
from thresher.trainer.engine.average_adapters import DOWN, UP, WEIGHTS, compute_scale

THINGS = {"red": "apple", "green": "leaf", "blue": "sky"}
PARTS = ((0, 12), (12, 24), (24, 36))
SETTINGS = th.TrainSettings(max_steps=12, batch_size=8, max_length=16, lora_rank=2, learning_rate=1e-2)


def make_rows(start, stop):
    return [
        {"text": f"the {thing} is {color} {number}", "label": color}
        for number in range(start, stop)
        for color, thing in THINGS.items()
    ]


@pytest.fixture(scope="module")
def adapters(tiny_bert, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    options = {"model": tiny_bert, "settings": SETTINGS}
    return [th.train(make_rows(*part), out=root / str(i), **options).path for i, part in enumerate(PARTS)]


def read_updates(folder):
    """Return the update of each layer, multiplied out."""
    config, weights = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / WEIGHTS)
    names = [name.removesuffix(UP) for name in weights if name.endswith(UP)]
    return {name: compute_scale(config) * weights[name + UP] @ weights[name + DOWN] for name in names}


def test_ties_keep_the_largest_entries_of_the_sign_that_weighs_more(adapters, tmp_path):
    merge_adapters(adapters[:2], tmp_path / "ties", way="ties", density=0.5)
    merge_adapters(adapters[:2], tmp_path / "mean", way="mean", density=0.5)
    ours, theirs = (read_updates(folder) for folder in adapters[:2])
    mean, merged = read_updates(tmp_path / "mean"), read_updates(tmp_path / "ties")
    for name, a in ours.items():
        b = theirs[name]
        torch.testing.assert_close(mean[name], (a + b) / 2)
        # by hand: half of the entries of each, then those of the sign of the sum, averaged
        kept = [x * (x.abs() >= x.abs().flatten().sort(descending=True).values[x.numel() // 2 - 1]) for x in (a, b)]
        total = kept[0] + kept[1]
        agrees = [(x.sign() == total.sign()) & (x != 0) for x in kept]
        count = (agrees[0].int() + agrees[1].int()).clamp(min=1)
        expected = sum(x * agree for x, agree in zip(kept, agrees, strict=True)) / count
        rank = 4  # the nearest matrix of the summed rank
        u, s, v = torch.linalg.svd(expected, full_matrices=False)
        nearest = (u[:, :rank] * s[:rank]) @ v[:rank]
        torch.testing.assert_close(merged[name], nearest, rtol=1e-4, atol=1e-5)


def test_regmean_is_the_least_squares_solution_of_what_the_adapters_compute(adapters, tmp_path):
    """By hand, from inputs of the layers themselves: minimize sum_i |X_i (D - D_i)^T|^2."""
    generator, moments, inputs = torch.Generator().manual_seed(0), [], []
    names = list(read_updates(adapters[0]))
    updates = [read_updates(folder) for folder in adapters[:2]]
    for n, size in ((200, 1.0), (300, 3.0)):  # more and larger inputs count more
        x = {name: size * torch.randn(n, updates[0][name].shape[1], generator=generator) for name in names}
        inputs.append(x)
        moments.append({f"body.{name}": own.T @ own for name, own in inputs[-1].items()})
    merge_adapters(adapters[:2], tmp_path / "regmean", way="regmean", density=0.5, moments=moments)
    merged = read_updates(tmp_path / "regmean")
    for name in names:
        grams = [own[name].T @ own[name] for own in inputs]
        grams = [0.9 * gram + 0.1 * torch.diag(gram.diagonal()) for gram in grams]
        above = sum(update[name] @ gram for update, gram in zip(updates, grams, strict=True))
        torch.testing.assert_close(merged[name], above @ torch.linalg.inv(sum(grams)), rtol=1e-3, atol=1e-5)
        mean = sum(update[name] for update in updates) / 2
        errors = [
            sum(float((own[name] @ (guess - update[name]).T).square().sum())
                for own, update in zip(inputs, updates, strict=True))
            for guess in (merged[name], mean)
        ]  # fmt: skip
        assert errors[0] < errors[1]


def test_a_soup_is_never_worse_on_the_dev_rows_and_is_compared_with_the_best_adapter(adapters, tmp_path, capsys):
    call = {"dev": make_rows(36, 44), "eval": make_rows(44, 60), "out": tmp_path / "soup"}
    call |= {"ways": ("mean", "ties", "dare", "regmean"), "data": [make_rows(*part) for part in PARTS]}
    result = th.soup(adapters, **call)
    content = result.content
    dev = [each["dev"] for each in content["adapters"]]
    assert dev[content["best_single"]["adapter"]] == max(dev)
    assert [each["way"] for each in content["soups"]] == ["mean", "ties", "dare", "regmean"]
    assert all(each["dev"] >= max(dev) for each in content["soups"])
    assert all(each["gain"]["n"] == 48 for each in content["soups"] if len(each["members"]) > 1)
    assert (result.path / "adapter" / WEIGHTS).is_file()
    assert th.open(result.path).content == content
    assert th.soup(adapters, **call).content == content
    assert content["answer"] in result.summary()
    tried = th.open(result.path).predict("the apple is", device="cpu")
    assert set(tried["label"]) == set(THINGS)
    assert tried["adapter"].sum() == pytest.approx(1)
    assert main(["try", str(result.path), "the apple is"]) == 0
    assert "adapter     base" in capsys.readouterr().out
    page, words = read_page(result.path)
    is_single = content["kept"] == "the best single adapter"
    assert ("No soup beats the best single" if is_single else f"{content['kept'][1:]} is best on the dev rows") in page
    assert str(adapters[2]) in page
    assert words[:5] == ["thresher", "soup", *map(str, adapters)]
    assert capsys.readouterr().err.startswith("thresher: no such option")


def test_what_was_learned_how_and_measured_beside_does_not_matter_to_the_rows_of_a_soup(adapters):
    metrics = Adapter.read(adapters[0]).metrics
    more = {"weight": "w", "metric": "lm-eval:arc_easy", "metric_limit": 5}
    stored = SimpleNamespace(metrics={**metrics, "settings": {**metrics["settings"], **more}})
    context = resolve_measuring(stored, load(make_rows(36, 38)), None)
    assert context.settings.is_plain
    assert context.identity()


def test_soups_need_adapters_that_are_alike_and_dev_rows_that_are_no_test_rows(adapters, tiny_bert, tmp_path, capsys):
    rows, options = make_rows(36, 44), {"model": tiny_bert, "settings": SETTINGS}
    with pytest.raises(InputError, match="at least 2 adapters, got 1"):
        th.soup(adapters[:1], dev=rows, eval=make_rows(44, 60))
    with pytest.raises(InputError, match="no dev row may be a test row"):
        th.soup(adapters, dev=rows, eval=rows)
    regmean, data = {"dev": rows, "eval": make_rows(44, 60), "ways": ("regmean",)}, [make_rows(*part) for part in PARTS]
    with pytest.raises(SettingsError, match="regmean needs the rows that each adapter was trained on, got no rows"):
        th.soup(adapters, **regmean)
    with pytest.raises(InputError, match="once for each of the 3 adapters, in the same order, got 2"):
        th.soup(adapters, **regmean, data=data[:2])
    for call in (th.soup, plan_soup):  # a dry run refuses what the run would
        with pytest.raises(InputError, match="must be the rows that .* was trained on"):
            call(adapters, **regmean, data=data[::-1])
    learned = make_rows(*PARTS[1])
    with pytest.raises(InputError, match=r"no test row may be one that an adapter was trained on.* found 36 of 36"):
        th.soup(adapters, dev=rows, eval=learned)
    with pytest.raises(InputError, match=r"no dev row may be one .* found 3 of 27 rows .*; take them out"):
        th.soup(adapters, **{**regmean, "dev": [*rows, *learned[:3]]}, data=data)
    with pytest.raises(InputError, match="needs different adapters, but .* is the same as"):
        th.soup([adapters[0], adapters[1], adapters[0]], dev=rows, eval=make_rows(44, 60))
    some = th.train(rows, out=tmp_path / "some", model=tiny_bert, settings=replace(SETTINGS, lora_layers="0"))
    for pair in ([adapters[0], some.path], [some.path, adapters[0]]):
        with pytest.raises(InputError, match="soup: all adapters must have the same layers, got .* in"):
            th.soup(pair, dev=make_rows(60, 64), eval=make_rows(44, 60))
    other = th.train(rows, out=tmp_path / "vera", model=tiny_bert, settings=replace(SETTINGS, adapter="vera"))
    with pytest.raises(SettingsError, match="merges low-rank updates, got an adapter of kind 'vera'"):
        th.soup([adapters[0], other.path], dev=rows, eval=make_rows(44, 60))
    few = th.train([row for row in rows if row["label"] != "red"], out=tmp_path / "few", **options)
    with pytest.raises(InputError, match=r"must have the same labels, got 3 labels \(only there: .red.\) in"):
        th.soup([adapters[0], few.path], dev=rows, eval=make_rows(44, 60))
    for name, side in (("dev", rows), ("test", make_rows(44, 60))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in side))
    words = ["soup", *map(str, adapters[:2]), "--dev", str(tmp_path / "dev.jsonl"), "--ways", "mean"]
    assert main([*words, "--eval", str(tmp_path / "test.jsonl")]) == 0
    assert "soup by mean of adapters" in capsys.readouterr().err
    assert main([*words, "--eval", str(tmp_path / "test.jsonl"), "--dry-run"]) == 0
    assert "2 adapters measured on 24 rows" in capsys.readouterr().out
    assert main([*words, "--eval", str(tmp_path / "test.jsonl"), "--density", "0.3"]) == 2
    assert "density is for ties and dare" in capsys.readouterr().err
    assert main([*words, "--eval", str(tmp_path / "test.jsonl"), "--device", "tpu"]) == 2
    assert "device" in capsys.readouterr().err
