"""Each kind of adapter once on intents and once on arithmetic: memory, time, score, forgetting.

    python benchmarks/adapters.py --data FOLDER

Banking77: MiniLM in float32, 400 rows, 75 steps of 16, accuracy on 500 test rows. GSM8K:
SmolLM2-135M-Instruct in bfloat16, 40 rows, 20 steps of 2, loss on 16 test rows and bits per byte
lost on 60 of the 300 embedded general rows, every fifth; no answers are written, of which so small
a model gets next to none right. One seed:
the errors are over test rows only, and a difference of kinds is paired by row. Each run is a
process of its own, whose peak of memory is that of the kind; what is in the result file is not run
again.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

SIZES = {"banking77": {"rows": 400, "test": 500, "steps": 75, "batch": 16}}
SIZES["gsm8k"] = {"rows": 40, "test": 16, "steps": 20, "batch": 2}
GENERAL = 60  # rows


def load_rows(data: Path, name: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return training rows, drawn at random with seed 0, and test rows."""
    rng, sizes = np.random.default_rng(0), SIZES[name]
    if name == "banking77":
        tables = [pl.read_csv(data / name / f"{part}.csv") for part in ("train", "test")]
        sides = [table.rename({"category": "label"}).select("text", "label").to_dicts() for table in tables]
    else:
        sides = [[json.loads(line) for line in (data / name / f"{part}.jsonl").open()] for part in ("train", "test")]
        sides = [[{"prompt": row["question"], "completion": row["answer"]} for row in side] for side in sides]
    train, test = (
        [side[i] for i in rng.permutation(len(side))[:n]]
        for side, n in zip(sides, (sizes["rows"], sizes["test"]), strict=True)
    )
    return train, test


def write_general(folder: Path) -> Path:
    """Write every fifth embedded text and question as texts, which are all read the same way."""
    from thresher.trainer.untouched.settings import EMBEDDED

    rows = [json.loads(line) for file in EMBEDDED for line in file.open()]
    texts = [row["text"] if "text" in row else f"{row['prompt']}\n{row['completion']}" for row in rows]
    path = folder / "general.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:: len(texts) // GENERAL]))
    return path


def measure(data: Path, name: str, kind: str) -> dict[str, Any]:
    """Train one kind, in this process, and return what it costs and scores."""
    from thresher.errors import SettingsError
    from thresher.trainer.settings import TrainSettings
    from thresher.trainer.train import train

    rows, test = load_rows(data, name)
    sizes = SIZES[name]
    settings = TrainSettings(
        adapter=kind, max_steps=sizes["steps"], batch_size=sizes["batch"], max_length=256, eval_generations=0,
        save_every_s=1e9, precision="fp32" if name == "banking77" else "bf16",
    )  # fmt: skip
    began = time.perf_counter()
    steps: list[float] = []
    cpu: list[float] = []

    def watch(event: Any) -> None:
        if event.kind in ("start", "step"):
            steps.append(time.perf_counter())
            cpu.append(time.process_time())

    try:
        with tempfile.TemporaryDirectory() as folder:
            general = "none" if name == "banking77" else str(write_general(Path(folder)))
            out = Path(folder) / "a"
            adapter = train(rows, eval=test, settings=settings, out=out, general=general, on_event=watch)
            table = pl.read_parquet(adapter.path / "predictions.parquet")
            size = sum(path.stat().st_size for path in adapter.path.glob("*.safetensors"))
    except SettingsError as error:
        return {"refused": str(error)}
    metrics = adapter.metrics
    general = metrics["general"]
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "step_seconds": round((steps[-1] - steps[0]) / (len(steps) - 1), 3),
        "step_cpu_seconds": round((cpu[-1] - cpu[0]) / (len(cpu) - 1), 3),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "file_bytes": size,
        "held_out": {key: value for key, value in metrics["held_out"].items() if key != "classes"},
        "base": None if metrics["base"] is None else metrics["base"]["references"][0]["scores"],
        "lost": None if general is None else general["lost"],
        "rows": dict(zip(table["row_id"], table["correct" if "correct" in table.columns else "loss"], strict=True)),
    }


def compare(result: dict[str, Any], plain: dict[str, Any]) -> tuple[float, float]:
    """Return mean and standard error of the difference to plain LoRA, paired by test row."""
    ids = sorted(plain["rows"])
    gaps = np.array([float(result["rows"][row]) - float(plain["rows"][row]) for row in ids])
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def format_table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table for each data set."""
    lines = []
    for name in SIZES:
        own = {key.partition("/")[2]: value for key, value in results.items() if key.startswith(f"{name}/")}
        plain = own.get("lora")
        if plain is None:
            continue
        metric = "accuracy" if name == "banking77" else "loss"
        lines += [f"\n### {name}, n = {len(plain['rows'])} test rows, one seed\n"]
        lines += [
            f"| adapter | s a step | peak memory | file | {metric} | against lora, paired | lost, bits per byte |"
        ]
        lines += ["|---|--:|--:|--:|--:|--:|--:|"]
        for kind, result in own.items():
            if "refused" in result:
                lines.append(f"| {kind} | refused: {result['refused'].rpartition(': ')[2]} | | | | | |")
                continue
            gap, error = compare(result, plain)
            score, lost = result["held_out"][metric], result["lost"]
            shown = "" if lost is None else f"{lost['value']:+.4f} [{lost['low']:+.4f}, {lost['high']:+.4f}]"
            per = "" if metric == "accuracy" else " a row"
            lines.append(
                f"| {kind} | {result['step_seconds']:.2f} | {result['peak_bytes'] / 2**20:,.0f} MiB "
                f"| {result['file_bytes'] / 2**20:.1f} MiB | {score['value']:.3f} ± {score['stderr']:.3f} "
                f"| {gap:+.3f} ± {error:.3f}{per} | {shown} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, each kind in a process of its own, and print the table."""
    from thresher.trainer.settings import AdapterKind

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/adapters.json"))
    parser.add_argument("--only", default="", help="banking77/lora: run this one, and print it")
    options = parser.parse_args()
    if options.only:
        name, _, kind = options.only.partition("/")
        print(json.dumps(measure(options.data, name, kind)))
        return
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in SIZES:
        for kind in get_args(AdapterKind):
            key = f"{name}/{kind}"
            if key not in results:
                command = [sys.executable, __file__, "--data", str(options.data), "--only", key]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[key] = json.loads(done.stdout.splitlines()[-1])
                options.out.write_text(json.dumps(results, indent=1) + "\n")
                print(key, results[key].get("seconds"), flush=True)
    print(format_table(results))


if __name__ == "__main__":
    main()
