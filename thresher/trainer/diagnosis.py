"""What training did to the weights: which layers moved, and which leading directions are new.

A leading left singular vector of the trained matrix W + s B A that no left singular vector of the
base matrix W resembles is an intruder dimension (Shuttleworth et al. 2024, arXiv:2410.21228): low
rank updates make them, training of all weights hardly does, and models with many forget more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

N_LEADING = 10  # singular vectors of each trained matrix that are looked at
EPSILON = 0.5  # largest cosine with a vector of the base below which a direction is new
NUMBER = re.compile(r"\.(\d+)\.")


def find_intruders(base: Matrix, trained: Matrix, *, k: int = N_LEADING, epsilon: float = EPSILON) -> list[int]:
    """Return which leading directions of a trained matrix are new, by rank from 0.

    Direction j is the j-th left singular vector u of the trained matrix; it is new where
    max_i |u . v_i| < epsilon over all left singular vectors v_i of the base with a singular value
    above zero. The likely ones are tried first: a resemblance found among them is final.

    Args:
        base: (n_out, n_in) weights before training.
        trained: (n_out, n_in) weights after it.
        k: directions to look at; those of a singular value of zero are passed over.
        epsilon: between 0 and 1.
    """
    leading = compute_left_vectors(trained, k)
    likely = compute_left_vectors(base, 2 * k)
    suspects = np.flatnonzero(_find_largest_cosine(likely, leading) < epsilon)
    if len(suspects) and likely.shape[1] < min(base.shape):
        suspects = suspects[_find_largest_cosine(compute_left_vectors(base), leading[:, suspects]) < epsilon]
    return [int(j) for j in suspects]


def compute_left_vectors(matrix: Matrix, k: int | None = None) -> Matrix:
    """Return the first k left singular vectors, (n_out, at most k), of singular values above zero.

    They are eigenvectors of the smaller of M M^T and M^T M, in float64: singular values below 1e-7
    of the largest are taken for zero.
    """
    from scipy.linalg import eigh

    matrix = np.asarray(matrix, dtype=np.float64)
    is_wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if is_wide else matrix.T @ matrix
    n = len(gram)
    subset = None if k is None or k >= n else (n - k, n - 1)
    values, vectors = eigh(gram, subset_by_index=subset)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > 1e-14 * max(float(values[0]), 0.0)
    vectors = vectors[:, kept]
    left: Matrix = vectors if is_wide else (matrix @ vectors) / np.sqrt(values[kept])
    return left


def _find_largest_cosine(base: Matrix, leading: Matrix) -> Matrix:
    if not base.shape[1]:
        return np.zeros(leading.shape[1])
    largest: Matrix = np.abs(base.T @ leading).max(axis=0)
    return largest


def diagnose_adapter(model: Any) -> dict[str, Any]:
    """Return the section `diagnosis` of `metrics.json` for a model with a low-rank adapter.

    Only adapted linear layers are looked at. The movement of a matrix is ||W' - W||_F / ||W||_F,
    that of a layer the same over its matrices together.

    Args:
        model: trained, not merged, with weights of floats.
    """
    matrices: list[dict[str, Any]] = []
    sums: dict[int | None, list[float]] = {}
    for name, base, trained in _iterate_matrices(model):
        match = NUMBER.search(f".{name}.")
        layer = None if match is None else int(match[1])
        moved, size = float(np.sum((trained - base) ** 2)), float(np.sum(base**2))
        sums.setdefault(layer, [0.0, 0.0])
        sums[layer][0] += moved
        sums[layer][1] += size
        intruders = find_intruders(base, trained) if moved else []
        matrices.append(
            {
                "name": name,
                "layer": layer,
                "directions": min(N_LEADING, *base.shape),
                "intruders": len(intruders),
                "moved": _divide_norms(moved, size),
            }
        )
    layers = []
    for layer in sorted(sums, key=lambda number: (number is None, number)):
        own = [each for each in matrices if each["layer"] == layer]
        layers.append({"layer": layer, "matrices": len(own), **_count(own), "moved": _divide_norms(*sums[layer])})
    return {"leading": N_LEADING, "epsilon": EPSILON, **_count(matrices), "layers": layers, "matrices": matrices}


def _iterate_matrices(model: Any) -> Iterable[tuple[str, Matrix, Matrix]]:
    """Return name, weights before and weights after of each adapted linear layer."""
    import torch
    from peft.tuners.lora.layer import LoraLayer

    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer) or not len(layer.lora_A) or layer.get_base_layer().weight.ndim != 2:
            continue
        with torch.no_grad():
            weight = layer.get_base_layer().weight.detach().float()
            delta = sum(layer.get_delta_weight(adapter).detach().float() for adapter in layer.active_adapters)
            if layer.fan_in_fan_out:
                weight, delta = weight.T, delta.T
            trained = weight + delta
            for part in layer.lora_magnitude_vector.values():  # DoRA sets the length of each row
                trained = part.weight.float().reshape(-1, 1) * trained / trained.norm(dim=1, keepdim=True)
        yield _shorten(name), weight.double().cpu().numpy(), trained.double().cpu().numpy()


def _shorten(name: str) -> str:
    return name.rpartition("base_model.model.")[2]


def _divide_norms(moved: float, size: float) -> float | None:
    """Return sqrt(moved / size) to six digits; None of a matrix of zeros."""
    return float(f"{(moved / size) ** 0.5:.6g}") if size else None


def _count(matrices: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(each[name] for each in matrices) for name in ("directions", "intruders")}


def describe_intruders(section: Mapping[str, Any]) -> str:
    """Return in one sentence how many leading directions are new, and where."""
    if not section["directions"]:
        return "No linear layer is adapted, so no leading direction can be new."
    n, of = section["intruders"], f"{section['directions']:,} leading directions"
    if not n:
        return f"None of {of} is new: no intruder dimensions."
    where = [each["layer"] for each in section["layers"] if each["intruders"]]
    numbers = [number for number in where if number is not None]
    text = f"{n:,} of {of} {'is' if n == 1 else 'are'} new (intruder dimension{'' if n == 1 else 's'})"
    if len(numbers) < len(where):
        return f"{text}."
    if len(where) == len(section["layers"]) > 1:
        return f"{text}, in all layers."
    if len(numbers) == 1:
        return f"{text}, {'' if n == 1 else 'all '}in layer {numbers[0]}."
    return f"{text}, {'all ' if n > 2 else ''}in layers {numbers[0]} to {numbers[-1]}."


def format_diagnosis(section: Mapping[str, Any] | None) -> list[str]:
    """Return the section `diagnosis` of `metrics.json` in a line for a summary, if any is new."""
    return [describe_intruders(section)] if section and section["intruders"] else []
