"""Is `gradient` with precondition=factors an influence function? Against kronfluence, another code.

    pip install --no-deps kronfluence einconv opt_einsum einops
    python benchmarks/gradient_oracle.py         # the toy `tiny`, about a minute on one core

A warm-up is trained on half of 48 instructions, and 12 rows of the target ask which of the 48 would
lower their loss. Ours: `gradient` with the small factors of LoRA's matrices. kronfluence, on the
same adapter and the same losses: influence by KFAC whose large factors were replaced by the
identity, which is what ours approximates by a sketch (`same`), and by KFAC and EKFAC as they are.
Between the two a plain reference, one backward pass per row without a sketch. Ours are cosines, so
each influence is divided by the lengths of its two gradients. Rank correlations over the 48 rows:
for each of the 12 targets, their mean, and of the mean over the targets, the score of the method,
by the product without and with a sketch; of its control, BM25 (`target-similarity kernel=bm25`);
and the largest difference between kronfluence's `same` and the reference, over the largest value.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from peft import PeftModel
from safetensors.torch import load_file
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM

import thresher as th
from thresher.features import compute, make_context
from thresher.features.likelihood.loss import load_row_tokenizer
from thresher.features.settings import GradientSettings
from thresher.models.causal_lm.embedded import causal_lm_folder
from thresher.models.causal_lm.likelihood import predictions
from thresher.models.causal_lm.tokenized_rows import row_texts
from thresher.selection.pool_adapters import plan_adapters, train_adapter
from thresher.selectors.gradient import Gradient

DATA = Path(__file__).parents[1] / "data/instructions"
RESULT = Path(__file__).parent / "results/gradient_oracle.json"
N_POOL, N_TARGET, DAMPING = 48, 12, 0.1
DIMS = (None, 1024, 8192, 65536)  # None, the default, makes no sketch
FIRST = ".lora_A.default"


def run_ours(pool, target, model: str, dim: int | None) -> tuple:
    """Return cosines (targets, rows) by the product, the tokens of the rows, and the warm-up.

    Without a sketch the product is asked for one row of the target at a time.
    """
    context = make_context(model=model, device="cpu", cache=None)
    (planned,), context = plan_adapters(Gradient(share=0.5, epochs=1, dim=dim), pool, context, seed=0)
    train_adapter(planned)
    settings = GradientSettings(dim=dim or 1, epochs=1, precondition="factors")
    context = make_context(model=model, device="cpu", cache=None, checkpoints=planned.folder, gradient=settings)
    tokenizer = load_row_tokenizer(context)
    tokens = [[each.row for each in tokenizer.tokenize(row_texts(rows).to_list())] for rows in (pool, target)]
    if dim is None:
        asked = [replace(context, examples=target.take([i])) for i in range(len(target))]
        cosines = [compute(pool, {"influence"}, each)["influence"][:, 0] for each in asked]
        return np.array(cosines, dtype=np.float64), tokens, planned.folder
    gradient = compute(pool, {"gradient"}, context)["gradient"].astype(np.float64)
    wanted = compute(target, {"target_gradient"}, context)["target_gradient"].astype(np.float64)
    return wanted @ gradient.T, tokens, planned.folder


def load_plain(folder, base: str) -> torch.nn.Module:
    """Return a peft model in the kept state of the warm-up, read by peft and torch alone."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder.adapters[0], is_trainable=True
    ).eval()
    state = load_file(folder.epochs()[0])
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(state[f"parameter/{name}"])
    return model


def measure_loss(model, row) -> torch.Tensor:
    """Return the mean loss of a row's scored tokens."""
    ids = torch.from_numpy(np.asarray(row.ids[: row.n_read], np.int64))[None]
    at, targets, _ = predictions([row], width=ids.shape[1], shift=1)
    logits = model(input_ids=ids, use_cache=False).logits[0][torch.from_numpy(at)]
    return torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(targets))


def run_reference(model, pool, target) -> tuple[np.ndarray, np.ndarray]:
    """Return influence (targets, rows), and the length of each pair of gradients it is of.

    The small factor of a matrix: of A the second moment of what comes back to its outputs, of B
    that of its inputs, all tokens of the pool counted.
    """
    parts = {name: part for name, part in model.named_modules() if name.endswith((FIRST, ".lora_B.default"))}
    inputs, outputs = {}, {}

    def watch(name):
        def keep(_, given, output):
            output.retain_grad()
            inputs[name], outputs[name] = given[0].detach(), output

        return keep

    hooks = [part.register_forward_hook(watch(name)) for name, part in parts.items()]
    gradients, moments, n_tokens = [], {}, 0
    for number, row in enumerate([*pool, *target]):
        model.zero_grad()
        measure_loss(model, row).backward()
        gradients.append({name: part.weight.grad.double().clone() for name, part in parts.items()})
        if number < len(pool):
            n_tokens += row.n_read
            for name in parts:
                side = (outputs[name].grad if name.endswith(FIRST) else inputs[name])[0].double()
                moments[name] = moments.get(name, 0) + side.T @ side
    for hook in hooks:
        hook.remove()
    influence, ours_square, theirs_square = np.zeros((len(target), len(pool))), 0, 0
    for name in parts:
        moment = moments[name] / n_tokens
        inverse = torch.linalg.inv(moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment)))
        divided = [inverse @ g[name] if name.endswith(FIRST) else g[name] @ inverse for g in gradients[: len(pool)]]
        ours = torch.stack([each.flatten() for each in divided])
        theirs = torch.stack([g[name].flatten() for g in gradients[len(pool) :]])
        influence += (theirs @ ours.T).numpy()
        ours_square = ours_square + (ours**2).sum(dim=1).numpy()
        theirs_square = theirs_square + (theirs**2).sum(dim=1).numpy()
    return influence, np.sqrt(theirs_square[:, None] * ours_square)


def run_kronfluence(model, pool, target, folder: Path, *, strategy: str, is_small: bool) -> np.ndarray:
    """Return influence (targets, rows) by kronfluence; with `is_small`, large factors are 1."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from safetensors.torch import save_file

    rows = [*pool, *target]

    class Losses(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return measure_loss(model, rows[int(batch[0])])

        def compute_measurement(self, batch, model):
            return measure_loss(model, rows[int(batch[0])])

        def get_influence_tracked_modules(self):
            return [name for name, _ in model.named_modules() if name.endswith((FIRST, ".lora_B.default"))]

    task = Losses()
    analyzer = Analyzer(
        f"oracle-{strategy}-{is_small}", prepare_model(model, task), task, cpu=True, output_dir=str(folder),
        disable_model_save=True, disable_tqdm=True,
    )  # fmt: skip
    train = [torch.tensor(i) for i in range(len(pool))]
    query = [torch.tensor(len(pool) + i) for i in range(len(target))]
    factors = FactorArguments(strategy=strategy, use_empirical_fisher=True)
    batch = {"per_device_batch_size": 1, "overwrite_output_dir": True}
    analyzer.fit_covariance_matrices("f", train, factor_args=factors, **batch)
    if is_small:
        place = analyzer.factors_output_dir("f")
        for kind, is_large in (
            ("activation", lambda name: FIRST in name),
            ("gradient", lambda name: FIRST not in name),
        ):
            path = place / f"{kind}_covariance.safetensors"
            count = load_file(place / f"num_{kind}_covariance_processed.safetensors")
            moments = load_file(path)
            kept = {
                name: torch.eye(len(each)) * count[name] if is_large(name) else each for name, each in moments.items()
            }
            save_file(kept, path)
    analyzer.perform_eigendecomposition("f", factor_args=factors, overwrite_output_dir=True)
    analyzer.fit_lambda_matrices("f", train, factor_args=factors, **batch)
    analyzer.compute_pairwise_scores(
        "s", "f", query, train, per_device_query_batch_size=1, per_device_train_batch_size=1,
        score_args=ScoreArguments(damping_factor=None), overwrite_output_dir=True,
    )  # fmt: skip
    scores: torch.Tensor = analyzer.load_pairwise_scores("s")["all_modules"]
    return scores.double().numpy()


def run_bm25(pool, target) -> np.ndarray:
    """Return the scores (rows,) of the control, which needs no model."""
    subset = th.select(pool, "target-similarity", budget=len(pool), target=target, settings={"kernel": "bm25"})
    return np.asarray(subset.scores.value, np.float64)


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over targets of the rank correlation over rows."""
    return float(np.mean([spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]))


def compare(name: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Return rank correlations over the rows: for each target, their mean, and of the scores."""
    return {name: correlate(ours, theirs), f"{name}, score": correlate(ours.mean(0)[None], theirs.mean(0)[None])}


def measure(pool, target, model: str, dims=DIMS) -> dict:
    """Return how far ours, the reference and kronfluence agree."""
    runs = {dim: run_ours(pool, target, model, dim) for dim in dims}
    _, (pool_tokens, target_tokens), folder = runs[dims[0]]
    base = str(causal_lm_folder()) if model == "tiny" else model
    reference, length = run_reference(load_plain(folder, base), pool_tokens, target_tokens)
    cosine = reference / length
    result = {"model": model, "rows": len(pool), "targets": len(target)}
    result["mean_cosine"] = float(cosine.mean())
    result["spread_of_cosines"] = float(cosine.std(axis=1).mean())
    result["largest_difference_without_a_sketch"] = float(np.abs(runs[None][0] - cosine).max())
    result["ours_and_reference"] = {dim: compare("targets", ours, cosine) for dim, (ours, _, _) in runs.items()}
    result["bm25_and_reference, score"] = correlate(run_bm25(pool, target)[None], cosine.mean(0)[None])
    with tempfile.TemporaryDirectory() as place:
        for name, strategy, is_small in (("same", "kfac", True), ("kfac", "kfac", False), ("ekfac", "ekfac", False)):
            scores = run_kronfluence(
                load_plain(folder, base), pool_tokens, target_tokens, Path(place), strategy=strategy, is_small=is_small
            )
            result[f"reference_and_{name}"] = compare("targets", cosine, scores / length)
            if is_small:
                result["kronfluence_over_reference"] = float((scores * reference).sum() / (reference**2).sum())
                result["largest_difference"] = float(np.abs(scores - reference).max() / np.abs(reference).max())
    return result


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    pool = th.load(DATA / "pool.jsonl")
    target = th.load(DATA / "target.jsonl")
    rng = np.random.default_rng(0)
    pool = pool.take(np.sort(rng.permutation(len(pool))[:N_POOL]))
    target = target.take(np.sort(rng.permutation(len(target))[:N_TARGET]))
    result = {"machine": machine("torch"), "entries": [measure(pool, target, options.model)]}
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
