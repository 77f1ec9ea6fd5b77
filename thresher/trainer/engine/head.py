"""A good start for a classifier: a head fitted to the untouched base by logistic regression.

The strength of its penalty is cross-validated inside the training rows: wrong labels and few rows
per class want a strong one (`benchmarks/learner.py`). Where the head is that of an architecture, a
pooler in front of it is first given a usable scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thresher.numeric.arrays import Bool, Float64
from thresher.numeric.threads import limit_blas
from thresher.trainer.engine.batches import Collate
from thresher.trainer.engine.pooled_classifier import PooledClassifier
from thresher.trainer.engine.tokenization import Example

N_ROWS = 4000  # rows the regression sees: enough to fit, and one forward pass of them stays short
BATCH = 64  # rows per forward pass
STD = 0.5  # of the pooler's output before its tanh, which is still nearly linear there
# inverse strengths of the L2 penalty on standardized features, the strongest penalty first
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
N_FOLDS = 3
N_VALIDATED = 2000  # rows that the penalty is chosen on: fifteen regressions stay short
FLOOR = 1e-6  # features that do not vary are not blown up


def initialize_head(model: Any, rows: Sequence[Example], *, collate: Collate, device: Any) -> bool:
    """Set the head to a linear probe, and leave it to training to improve on it.

    Linear probing, then fine-tuning (Kumar et al. 2022, arXiv:2202.10054): from a random head, the
    first steps distort the features of the base, and a small adapter needs many epochs to give the
    head a signal of usable size. Before that, a pooler that is trained whole is standardized on the
    rows (after Mishkin and Matas 2016, arXiv:1511.06422): an encoder trained for mean-pooled
    embeddings leaves it with outputs that hardly vary. Only a head that is one linear layer is
    set; others keep their random start. Classes without a row get a low bias.

    Args:
        model: with a peft adapter and one trainable linear head.
        rows: training rows; the first N_ROWS in the given order are used.
        collate: rows -> tensors.
        device: where the model lies.

    Returns:
        Whether the head was set.
    """
    used = sorted(rows[:N_ROWS], key=lambda row: len(row.input_ids))
    code = np.array([row.labels[0] for row in used])
    head = _find_linear_head(model)
    if head is None or len(set(code.tolist())) < 2:
        return False
    pooler = _find_trained_copy(model, "pooler")
    dense = getattr(pooler, "dense", None)
    if isinstance(dense, torch.nn.Linear):
        x = _record_behind_pooler(model, head, pooler, used, collate, device)
    else:
        (x,) = _record(model, [head], used, collate, device)
    _set_probe(head, x, code, np.array([row.weight for row in used]))
    return True


def _record_behind_pooler(
    model: Any, head: Any, pooler: Any, used: Sequence[Example], collate: Collate, device: Any
) -> Float64:
    """Standardize a pooler, and return what the head reads of each row then: (n, d).

    The rows are read once, where the head reads what the pooler makes of what its layer reads, and
    nothing else lies between: that is seen before anything is changed.
    """
    dense_inputs, head_inputs = _record(model, [pooler.dense, head], used, collate, device)

    def pool() -> Float64:
        vectors = torch.from_numpy(dense_inputs).to(pooler.dense.weight)
        with torch.inference_mode():
            pooled: Float64 = pooler(vectors[:, None]).double().cpu().numpy()
        return pooled

    is_all = bool(np.allclose(pool(), head_inputs, rtol=1e-4, atol=1e-5))
    with torch.inference_mode():
        outputs = pooler.dense(torch.from_numpy(dense_inputs).to(pooler.dense.weight)).double().cpu().numpy()
    _standardize(pooler.dense, outputs)
    return pool() if is_all else _record(model, [head], used, collate, device)[0]


def _standardize(layer: torch.nn.Linear, outputs: Float64) -> None:
    """Shift and scale a layer so that its outputs have mean 0 and standard deviation STD here."""
    mean, std = torch.from_numpy(outputs.mean(axis=0)), torch.from_numpy(outputs.std(axis=0))
    # an output that hardly varies is not blown up to noise
    gain = STD / torch.clamp(std, min=float(std.median()) / 10 + FLOOR)
    gain, mean = gain.to(layer.weight), mean.to(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(gain[:, None])
        layer.bias.sub_(mean).mul_(gain)


def _set_probe(head: torch.nn.Linear, x: Float64, code: NDArray[np.int64], weight_of: Float64) -> None:
    """Set a head to the logistic regression from (n, d) features to (n,) classes by weight."""
    mean, std = x.mean(axis=0), x.std(axis=0) + FLOOR
    standardized = (x - mean) / std
    every = -(-len(code) // N_VALIDATED)  # the rows are sorted by length
    penalty = choose_penalty(standardized[::every], code[::every], weight_of[::every])
    probe = _fit_probe(standardized, code, penalty, weight_of)
    coef, intercept = probe.coef_, probe.intercept_
    if len(probe.classes_) == 2:  # scikit-learn gives one row: the log-odds of the second class
        coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    # classes without a row get no weights and the lowest bias
    weight = np.zeros(tuple(head.weight.shape))
    bias = np.full(len(weight), intercept.min())
    # w (x - mean) / std + b = (w / std) x + (b - w mean / std): the head reads x as it is
    weight[probe.classes_] = coef / std
    bias[probe.classes_] = intercept - (coef * (mean / std)).sum(axis=1)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(bias))


def choose_penalty(x: Float64, code: NDArray[np.int64], weight: Float64 | None = None) -> float:
    """Return the penalty under which held-out rows of each fold are likeliest: one of PENALTIES.

    Folds are dealt out within classes, so no random number is used. A row whose class is not among
    the other folds has no likelihood there and does not count. Ties go to the stronger penalty.
    O(15) regressions.

    Args:
        x: (n, d) standardized features.
        code: (n,) classes.
        weight: (n,) how much each row counts; None for all alike.
    """
    counts = np.ones(len(code)) if weight is None else weight
    fold = np.empty(len(code), dtype=np.int64)
    fold[np.argsort(code, kind="stable")] = np.arange(len(code)) % N_FOLDS
    parts = [(fold != number, fold == number) for number in range(N_FOLDS)]
    if any(len(set(code[is_learned].tolist())) < 2 or not is_judged.any() for is_learned, is_judged in parts):
        return PENALTIES[0]  # too few rows to hold any out
    totals = [sum(_measure_fold(x, code, counts, *part, penalty) for part in parts) for penalty in PENALTIES]
    return PENALTIES[int(np.argmax(totals))]


def _measure_fold(
    x: Float64, code: NDArray[np.int64], weight: Float64, is_learned: Bool, is_judged: Bool, penalty: float
) -> float:
    """Return the log-likelihood of the judged rows whose class was learned, summed by weight."""
    probe = _fit_probe(x[is_learned], code[is_learned], penalty, weight[is_learned])
    is_known = is_judged & np.isin(code, probe.classes_)
    if not is_known.any():
        return 0.0
    log_share = probe.predict_log_proba(x[is_known])
    column = np.searchsorted(probe.classes_, code[is_known])
    return float((weight[is_known] * log_share[np.arange(len(column)), column]).sum())


def _fit_probe(x: Float64, code: NDArray[np.int64], penalty: float, weight: Float64) -> Any:
    from sklearn.linear_model import LogisticRegression

    # few rows of many classes are what this start is for
    with limit_blas(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        return LogisticRegression(C=penalty, max_iter=200, tol=1e-3).fit(x, code, sample_weight=weight)


def _find_linear_head(model: Any) -> torch.nn.Linear | None:
    """Return the head that is trained where it is one linear layer, as in BERT."""
    if isinstance(model, PooledClassifier):
        return model.head
    head = _find_trained_copy(model, "classifier")
    return head if isinstance(head, torch.nn.Linear) else None


def _find_trained_copy(model: Any, name: str) -> Any:
    """Return the copy of a layer that peft trains whole, or None."""
    for path, part in model.named_modules():
        if path.rsplit(".", 1)[-1] == name and hasattr(part, "modules_to_save"):
            return part.modules_to_save["default"]
    return None


def _record(model: Any, layers: Sequence[Any], rows: Sequence[Example], collate: Collate, device: Any) -> list[Float64]:
    """Return what each of some layers reads of each row: (n, d) for each layer."""
    recorded: list[list[torch.Tensor]] = [[] for _ in layers]

    def make_recorder(parts: list[torch.Tensor]) -> Callable[[Any, Any], None]:
        return lambda _, inputs: parts.append(inputs[0].detach().float().cpu())

    hooks = [
        layer.register_forward_pre_hook(make_recorder(parts)) for layer, parts in zip(layers, recorded, strict=True)
    ]
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH):
                model(**collate(rows[start : start + BATCH]).to_device(device).inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(parts).double().numpy() for parts in recorded]
