"""Output folders of every kind: a subset by the real command, others as the contract describes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from thresher.artifacts.manifest import FORMAT
from thresher.curation.curate import curate
from thresher.dataset import load
from thresher.evaluation.curves.curve_fit import CurveFit, fit_curve
from thresher.evaluation.curves.enough import find_enough
from thresher.reporting import report
from thresher.selection.run import select

BAD = "<script>alert('x')</script> \"quoted\" & </script><!-- $x^2$ \u2028 \u202e 漢字"
METHODS = {"random": (0.16, 1.9, 0.55), "facility-location": (0.155, 1.2, 0.52), "length": (0.21, 2.4, 0.6)}
SIZES = (160, 320, 640, 1280, 2560)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_pool(path: Path, n: int = 120, *, bad: bool = False) -> Path:
    """Write n short texts of three labels; the first of them is hostile when asked for."""
    rng = np.random.default_rng(3)
    words = {"red": "apple cherry brick rose", "green": "leaf moss lime fern", "blue": "sky sea ink whale"}
    rows = []
    for i in range(n):
        label = list(words)[i % 3]
        picked = rng.choice(words[label].split(), 3)
        rows.append({"text": f"the {' and the '.join(picked)} number {i}", "label": label, "source": f"shop {i % 2}"})
    if bad:
        rows[0] |= {"text": BAD, "label": BAD, "source": BAD}
        rows[1] |= {"text": BAD + " again"}
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def manifest(kind: str, pool: Path, **more: object) -> dict[str, object]:
    return {
        "format": FORMAT,
        "kind": kind,
        "identity": "0" * 64,
        "pool": {"fingerprint": "f" * 32, "rows": 120},
        "model": {"name": "embedded"},
        "task": "classification",
        "settings": {"learning_rate": 0.001, "epochs": 3.0, "packing": False},
        "inputs": [{"name": pool.name, "bytes": pool.stat().st_size, "sha256": "a" * 64}],
        "schema": {"name": "text-label", "columns": {"text": ["text"], "label": ["label"]}},
        "versions": {"thresher": "0.1.0", "numpy": "2.4.6"},
        "run": {"created": "2026-11-21T10:00:00+00:00", "seconds": 1234.5, "inputs": [str(pool)]},
        **more,
    }


def describe_fit(fit: CurveFit, sizes, runs, *, dips: bool) -> dict[str, object]:
    """Return the entry of a method in `saturation.json`."""
    return {
        "enough": find_enough(fit, n_pool=2560, n_test=1000).to_json(),
        "asymptote": fit.asymptote().to_json(),
        "laws": dict(fit.weights),
        "misfit": fit.misfit,
        "seed_sd": [{"n_rows": int(n), "value": float(sd)} for n, sd in zip(fit.sizes, fit.seed_sd, strict=True)],
        "points": [
            {"n_rows": n, "value": float(np.mean(v)), "stderr": 0.009, "n_seeds": len(v)}
            for n, v in zip(sizes, runs, strict=True)
        ],
        "band": [
            {"n_rows": int(n), **fit.predict(float(n)).to_json()} for n in np.geomspace(sizes[0], 4 * sizes[-1], 40)
        ],
        "gain_of_doubling": [{"n_rows": n, **fit.gain(n, n).to_json()} for n in sizes],
        "targets": [{"target": 0.8, **fit.rows_needed(0.8).to_json()}],
        "gains": [{"from": sizes[-1], "more": 1000, **fit.gain(sizes[-1], 1000).to_json()}],
        "notes": ["from 1,280 to 2,560 rows the accuracy gets worse by 0.06 ± 0.01"] if dips else [],
    }


def list_trades(methods) -> list[dict[str, object]]:
    as_good = {"median": 900.0, "low": 800.0, "high": None}
    return [
        {"method": method, "n_rows": 640, "baseline": "random", "baseline_rows": as_good}
        for method in methods
        if method != "random"
    ]


def write_curve(
    folder: Path, pool: Path, *, methods=METHODS, sizes=SIZES, n_seeds: int = 4, dips: bool = False
) -> Path:
    """Write a curve folder from simulated accuracies: 1 - (c + a n^-b) + noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    cells, costs, entries, slices = [], [], {}, []
    for method, (c, a, b) in methods.items():
        runs = [[float(1 - (c + a * n**-b) + rng.normal(0, 0.008)) for _ in range(n_seeds)] for n in sizes]
        if dips:
            runs[-1] = [value - 0.06 for value in runs[-1]]
        fit = fit_curve(sizes, runs, is_higher_better=True, n_samples=300)
        for n, values in zip(sizes, runs, strict=True):
            for seed, value in enumerate(values):
                cell = {"metric": "accuracy", "value": value, "stderr": 0.012, "n": 1000, "loss": 1 - value, "steps": n}
                cells.append({"method": method, "n_rows": n, "seed": seed, **cell, "status": "done", "reason": None})
                seconds = {"select_seconds": 1.5, "train_seconds": n / 20}
                costs.append({"method": method, "n_rows": n, "seed": seed, **seconds, "is_reused": False})
            for i, group in enumerate(("red", "green", "blue", BAD)):
                value = float(np.mean(values)) - 0.05 * i
                where = {"method": method, "n_rows": n, "slice": "label", "group": group}
                slices.append({**where, "value": value, "stderr": 0.02, "n": 250})
        entries[method] = describe_fit(fit, sizes, runs, dips=dips)
    cells.append(cells[-1] | {"seed": 99, "value": None, "stderr": None, "status": "failed", "reason": BAD})
    pl.DataFrame(cells, infer_schema_length=None).write_csv(folder / "curve.csv")
    pl.DataFrame(costs).write_csv(folder / "cost.csv")
    pl.DataFrame(slices).write_csv(folder / "slices.csv")
    write_picks(folder, pool, list(methods))
    write_json(
        folder / "saturation.json",
        {
            "metric": "accuracy",
            "is_higher_better": True,
            "answer": "1,200 rows chosen by facility-location of the 2,560 rows [900, 1,700] come within 1 point.",
            "within": "1%",
            "of": 2560,
            "pool": 2560,
            "stopped": "the answer is firm",
            "cost_share": 0.31,
            "methods": entries,
            "trade": list_trades(methods),
        },
    )
    plan = {"methods": list(methods), "sizes": list(sizes), "n_seeds": n_seeds, "is_grid": False, "within": "1%"}
    write_json(folder / "manifest.json", manifest("curve", pool, asked={"plan": plan, "slices": []}))
    return folder


def write_picks(folder: Path, pool: Path, methods: list[str]) -> None:
    ids = load(pool).frame["row_id"].to_list()
    rng = np.random.default_rng(5)
    picks = [
        {"method": method, "seed": seed, "rank": rank, "row_id": ids[row]}
        for method in methods
        for seed in (0, 1)
        for rank, row in enumerate(rng.permutation(len(ids))[: len(ids) // 4], start=1)
    ]
    pl.DataFrame(picks).write_parquet(folder / "picks.parquet")


def write_comparison(
    folder: Path, pool: Path, *, methods=("random", "facility-location", "length", "k-center")
) -> Path:
    """Write a comparison folder: one method is better, one worse, one not to be told apart."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    gaps = dict(zip(methods, (0.0, 0.021, -0.018, 0.003), strict=False))
    cells, verdicts = [], []
    for budget in (500, 1000):
        for method in methods:
            for seed in range(5):
                value = 0.75 + gaps[method] + budget / 50000 + float(rng.normal(0, 0.004))
                cell = {"metric": "accuracy", "value": value, "stderr": 0.013, "n": 1000, "loss": 0.8, "steps": 90}
                seconds = {"select_seconds": 2.0, "train_seconds": 40.0 + budget / 20}
                cells.append({"method": method, "n_rows": budget, "seed": seed, **cell, **seconds,
                              "status": "done", "reason": None, "cell": "c" * 64})  # fmt: skip
            if method == "random":
                continue
            gap = gaps[method]
            is_clear = abs(gap) > 0.01
            sentence = "better by 2.1 points [1.2, 3.0]" if gap > 0.01 else "worse by 1.8 points [0.9, 2.7]"
            if not is_clear:
                sentence = "no difference seen; 1.3 points would have been detectable"
            numbers = {"stderr": 0.0045, "dof": 6.0, "p": 0.0004 if is_clear else 0.5, "detectable": 0.013}
            verdicts.append(
                {
                    "method": method,
                    "n_rows": budget,
                    "difference": {"value": gap, "low": gap - 0.009, "high": gap + 0.009, **numbers},
                    "p_holm": 0.002 if is_clear else 0.9,
                    "sentence": sentence,
                    "seeds_needed": 3,
                    "select_seconds": 2.0,
                    "train_seconds": 40.0 + budget / 20,
                    "train_share_of_cost": 0.95,
                    "others": {"macro_f1": {"difference": {"value": 0.09}, "p_holm": 0.01, "sentence": OTHER}},
                }
            )
    pl.DataFrame(cells).write_csv(folder / "cells.csv")
    write_picks(folder, pool, list(methods))
    content = {"metric": "accuracy", "is_higher_better": True, "budgets": [500, 1000], "baseline": "random"}
    write_json(folder / "comparison.json", content | {"verdicts": verdicts})
    write_json(folder / "manifest.json", manifest("comparison", pool))
    return folder


OTHER = "better by 9.1 points [7.2, 11.0]"  # in macro-F1


def estimate(value: float, stderr: float = 0.012, n: int = 1000) -> dict[str, float]:
    return {"value": value, "stderr": stderr, "n": n}


def write_outcomes(folder: Path, labels, *, control: bool) -> None:
    """Write the losses of each step, and predictions of which every seventh is wrong."""
    for name in ("loss.csv", "control/loss.csv") if control else ("loss.csv",):
        lines = ["step,epoch,learning_rate,loss,n_learned,eval_loss,eval_stderr,eval_n"]
        for step in range(1, 61):
            measured = f"{1.4 - step / 100},0.04,1000" if step % 20 == 0 else ",,"
            lines.append(f"{step},{step / 20},0.001,{2.0 / step**0.5},16,{measured}")
        (folder / name).write_text("\n".join(lines) + "\n")
    truth = [labels[i % len(labels)] for i in range(200)]
    guess = [labels[(i + (i % 7 == 0)) % len(labels)] for i in range(200)]
    pl.DataFrame({"label": truth, "prediction": guess}).write_parquet(folder / "predictions.parquet")


def write_adapter(folder: Path, *, labels=("red", "green", "blue", BAD), control: bool = True) -> Path:
    """Write what the page of an adapter reads: metrics, losses, predictions and manifest."""
    (folder / "control").mkdir(parents=True)
    classes = {
        label: {part: estimate(0.9 - 0.1 * i, 0.03, 250) for part in ("precision", "recall", "f1")}
        for i, label in enumerate(labels)
    }
    scores = {"accuracy": estimate(0.81), "macro_f1": estimate(0.77), "loss": estimate(0.62, 0.03)}
    held_out = {**scores, "classes": classes}
    lower = {**held_out, "accuracy": estimate(0.78)}
    train = {"rows": 300, "tokens": 9000, "rows_left_out": {BAD: 2}, "rows_truncated": 1, "tokens_cut": 40}
    metrics = {
        "task": "classification",
        "model": {"name": "embedded"},
        "seed": 0,
        "n_steps": 60,
        "counts": {"given": 302, "held_out": 0, "same_text_as_held_out": 1, "train": train},
        "held_out": held_out,
        "control": {"train": train, "held_out": lower} if control else None,
        "comparison": {
            "metric": "accuracy",
            "is_higher_better": True,
            "seeds": [0, 1],
            "subset": estimate(0.81),
            "random": estimate(0.78),
            "difference": estimate(0.03, 0.01),
            "gain": {"value": 0.03, "low": 0.01, "high": 0.05, "stderr": 0.01, "n": 1000, "n_seeds": 2},
        }
        if control
        else None,
        "runs": [
            {"role": role, "seed": seed, "n_steps": 60, "rows": 300, "held_out": scores}
            for role in ("main", "control")
            for seed in (0, 1)
        ],
        "settings": {"early_stopping_patience": None},
    }
    write_json(folder / "metrics.json", metrics)
    write_outcomes(folder, labels, control=control)
    content = {
        "format": FORMAT,
        "kind": "adapter",
        "identity": "1" * 64,
        "model": {"name": "embedded"},
        "settings": {"learning_rate": 0.001, "max_steps": None, "packing": False},
        "seeds": [0, 1],
        "versions": {"thresher": "0.1.0"},
        "run": {"started": "2026-11-21T10:00:00+00:00", "seconds": 75.0, "device": "cpu"},
    }
    write_json(folder / "manifest.json", content)
    return folder


def write_tuning(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(4)
    early = rng.uniform(0.5, 0.8, 12)
    final = [float(e + 0.05) if i < 8 else None for i, e in enumerate(early)]
    trials = {"trial": list(range(12)), "learning_rate": rng.uniform(1e-4, 1e-2, 12), "early": early, "final": final}
    pl.DataFrame(trials).with_columns(note=pl.lit(BAD)).write_csv(folder / "trials.csv")
    content = {"format": FORMAT, "kind": "tuning", "identity": "2" * 64, "settings": {"trials": 12}, "run": {}}
    write_json(folder / "manifest.json", content)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one folder of each kind, without reports; each contains a hostile text."""
    root = tmp_path_factory.mktemp("report-inputs")
    pool = write_pool(root / "pool <b>&'.jsonl", bad=True)
    select(load(pool), "facility-location", budget="40%", encoder="static", out=root / "subset")
    rules = ["near-duplicates", "length", "repetition"]
    settings = {"near-duplicates": {"threshold": 0.5, "same_label": False}, "length": {"min_words": 6}}
    curate(load(pool), rules, settings=settings, report=["repetition"], out=root / "curated")
    return {
        "subset": root / "subset",
        "curated": root / "curated",
        "adapter": write_adapter(root / "adapter"),
        "curve": write_curve(root / "curve", pool),
        "comparison": write_comparison(root / "comparison", pool),
        "tuning": write_tuning(root / "tuning"),
    }


VOID = {"meta", "input", "br", "hr", "img", "link", "rect", "circle"}


class Reader(HTMLParser):
    """Collects the elements of a page: (tag, attributes, text inside, tags around it)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[dict] = []
        self.open: list[dict] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": [e["tag"] for e in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "attrs": dict(attrs), "text": "", "inside": [e["tag"] for e in self.open]})

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1]["tag"] == tag, f"</{tag}> closes <{self.open[-1]['tag']}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]

    @property
    def lead(self) -> str:
        (text,) = [e["text"] for e in self.all("p") if e["attrs"].get("class") == "lead"]
        return text.replace("\xa0", " ")


def _read_report(folder: Path) -> Reader:
    return Reader(report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def read_report():
    """Return a function that writes the report of a folder and parses it."""
    return _read_report


@pytest.fixture(scope="session")
def pages(folders, tmp_path_factory):
    """Return the folder and the parsed page of each kind, reported once."""
    copies = {kind: Path(shutil.copytree(folders[kind], tmp_path_factory.mktemp("pages") / kind)) for kind in folders}
    return {kind: (folder, _read_report(folder)) for kind, folder in copies.items()}


@pytest.fixture(scope="session")
def edit_json():
    """Return a context manager that gives the content of a JSON file to change."""

    @contextmanager
    def edit(path: Path) -> Iterator[dict]:
        content = json.loads(path.read_text())
        yield content
        if "run" in content:
            content["run"].pop("seal", None)  # as of an earlier version
        path.write_text(json.dumps(content))

    return edit


@pytest.fixture
def copy_folder(folders: dict[str, Path], tmp_path: Path):
    """Return a function that gives a fresh copy of a folder by kind."""

    def fresh(kind: str) -> Path:
        return Path(shutil.copytree(folders[kind], tmp_path / kind))

    return fresh
