"""Gradients of single rows with respect to a LoRA adapter: sketches, or cosines with a target's.

All rows of a batch share one forward and one backward pass, but for adapters on the experts of a
mixture. The backward pass stops at the outputs of the adapter's matrices; the gradient of a row is
then the product of what a matrix was given for that row and what came back, summed over its tokens
(Goodfellow 2015, arXiv:1510.01799).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from torch.nn.functional import cross_entropy, normalize

from thresher.cache.batch import Batch
from thresher.errors import InputError, first_three
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow, padded, predictions
from thresher.models.precision import full_precision
from thresher.models.token_batches import token_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thresher.features.settings import Precondition

MATRICES = (".lora_A.default", ".lora_B.default")
FIRST = MATRICES[0]
DAMPING, TINY = 0.1, 1e-30  # of the mean of a factor's diagonal
PREFIX, SUFFIX = "base_model.model.", ".weight"  # around a module's name in a checkpoint
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of the trainer's AdamW
GPU_BATCH_SHARE = 4  # a backward pass holds all activations, so its batches are smaller


@dataclass(frozen=True, kw_only=True)
class AdapterState:
    """An adapter and its optimizer at the end of an epoch.

    Attributes:
        weight: (out, in) of each matrix, by module.
        first: its moving mean of gradients, as AdamW keeps it (not corrected for its start at 0).
        second: its moving mean of squared gradients.
        step: optimizer steps taken.
        rate: mean learning rate of the epoch.
    """

    weight: Mapping[str, torch.Tensor]
    first: Mapping[str, torch.Tensor]
    second: Mapping[str, torch.Tensor]
    step: int
    rate: float

    @classmethod
    def read(cls, path: Path) -> AdapterState:
        """Read what the trainer kept after an epoch.

        Raises:
            InputError: there is more in it than the two matrices of plain LoRA.
        """
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            history = json.loads(file.metadata()["history"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        names = [key.removeprefix("parameter/") for key in tensors if key.startswith("parameter/")]
        other = [name for name in names if not name.removesuffix(SUFFIX).endswith(MATRICES)]
        if other:
            raise InputError(
                f"gradient: {path} must hold the matrices of plain LoRA alone, found also {first_three(other)}"
            )
        module = {name: name.removeprefix(PREFIX).removesuffix(SUFFIX) for name in names}
        zero = {name: torch.zeros_like(tensors[f"parameter/{name}"]) for name in names}
        epoch = max(entry["epoch"] for entry in history["losses"])
        rates = [entry["learning_rate"] for entry in history["losses"] if entry["epoch"] > epoch - 1 + 1e-9]
        return cls(
            weight={module[name]: tensors[f"parameter/{name}"] for name in names},
            first={module[name]: tensors.get(f"exp_avg/{name}", zero[name]) for name in names},
            second={module[name]: tensors.get(f"exp_avg_sq/{name}", zero[name]) for name in names},
            step=int(history["step"]),
            rate=float(np.mean(rates)),
        )


def adam_direction(g: torch.Tensor, first: torch.Tensor, second: torch.Tensor, step: int) -> torch.Tensor:
    """Return the direction in which AdamW would step if g were its next gradient, without decay.

    (b1 m + (1 - b1) g) / (1 - b1^t), over sqrt of (b2 v + (1 - b2) g^2) / (1 - b2^t), plus epsilon,
    with t = step + 1: the moments are corrected for their start at 0, as the optimizer does.
    """
    b1, b2 = BETAS
    mean = (b1 * first + (1 - b1) * g) / (1 - b1 ** (step + 1))
    square = (b2 * second + (1 - b2) * g * g) / (1 - b2 ** (step + 1))
    return mean / (square.sqrt() + EPSILON)


def make_sketch(module: str, n_weights: int, *, dim: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return place, (n_weights,) int64 below dim, and sign, float32, of each weight in a sketch.

    Entry j of the sketch is the sum of sign * gradient over the weights placed in j (Charikar et
    al. 2002, doi:10.1016/S0304-3975(03)00400-6). Inner products of sketches estimate those of
    gradients without bias, with the same variance as dense random signs, at one addition per weight
    in place of `dim`, and two numbers per weight are all that is ever held.

    Args:
        module: name of the matrix.
        n_weights: of it.
        dim: entries of a sketch.
        number: of the checkpoint: each has a sketch of its own, so that their errors average out.
    """
    seed = xxhash.xxh3_64_intdigest(f"{number}/{dim}/{module}".encode()) >> 1
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(dim, (n_weights,), generator=generator)
    sign = torch.randint(2, (n_weights,), generator=generator).float() * 2 - 1
    return place, sign


def _invert_roots(square: torch.Tensor) -> torch.Tensor:
    """Return 1 / sqrt of each entry, and 0 for 0: a row without a gradient pulls nowhere."""
    return torch.where(square > 0, square, torch.inf).rsqrt()


class RowGradients:
    """A model with an adapter in one of its states, and the gradients of rows at it."""

    def __init__(self, lm: LanguageModel, state: AdapterState, *, dim: int | None, number: int) -> None:
        """Load a state into the adapter.

        Args:
            lm: named by the folder of the adapter, and not shared: its weights are changed.
            state: of the adapter.
            dim: entries of a sketch; None where none is made.
            number: of the state, which chooses the sketch.

        Raises:
            InputError: the adapter of the model has other matrices.
        """
        self._lm = lm
        self._state = state
        self._dim = dim or 0
        self._modules = {name: part for name, part in lm.model.named_modules() if name.endswith(MATRICES)}
        if self._modules.keys() != state.weight.keys():
            differing = sorted(self._modules.keys() ^ state.weight.keys())
            raise InputError(f"gradient: model '{lm.name}' and its kept states differ in {first_three(differing)}")
        device = lm.device
        self._moments = {
            name: (state.first[name].to(device).float(), state.second[name].to(device).float()) for name in state.weight
        }
        self._sketch = {}
        self._factors: dict[str, torch.Tensor] = {}
        for name, part in self._modules.items():
            with torch.no_grad():
                part.weight.copy_(state.weight[name])
            # else no gradient would come back to the first matrices
            part.weight.requires_grad_(True)
            if dim is not None:
                place, sign = make_sketch(name, part.weight.numel(), dim=dim, number=number)
                self._sketch[name] = place.to(device), sign.to(device)

    def fit_factors(self, rows: Sequence[TokenRow], *, batch_tokens: int) -> None:
        """Estimate the factors by which `compute_batches` divides gradients with "factors".

        LoRA's pair B A has one small side, the rank r. For A the (r, r) second moment of what comes
        back to its outputs, for B that of what its inputs are, over the tokens of the rows: the
        small factor of the Kronecker product that approximates the Fisher matrix of each (Martens
        and Grosse 2015, arXiv:1503.05671); the large one is taken as the identity.

        Args:
            rows: a sample of the pool.
            batch_tokens: tokens in one pass, padding included.
        """
        total: dict[str, torch.Tensor] = {}
        n_tokens = sum(row.n_read for row in rows)
        n_read = np.array([row.n_read for row in rows], dtype=np.int64)
        for batch in token_batches(n_read, self._lm.limit_batch_tokens(batch_tokens)):
            chosen = [rows[i] for i in batch]
            ids = padded(self._lm, [row.ids[: row.n_read] for row in chosen])
            _, calls, returned = self._run(chosen, ids)
            for (name, inputs, _), back in zip(calls, returned, strict=True):
                # padded places give nothing back, and what goes into B there is left out with them
                side = back if name.endswith(FIRST) else inputs * back.abs().sum(-1, keepdim=True).gt(0)
                flat = side.detach().float().flatten(0, -2)
                total[name] = total.get(name, 0) + flat.T @ flat
        self._factors = {}
        for name, moment in total.items():
            moment = moment / max(1, n_tokens)
            damping = DAMPING * moment.diagonal().mean() + TINY
            identity = torch.eye(len(moment), device=moment.device)
            self._factors[name] = torch.linalg.inv(moment + damping * identity)

    def compute_batches(
        self, rows: Sequence[TokenRow], *, batch_tokens: int, precondition: Precondition | None
    ) -> Iterator[Batch]:
        """Yield (b, dim) float16 sketches of length 1, or zero, the longest rows first.

        Args:
            rows: each with a scored token; the loss of a row is the mean over these.
            batch_tokens: tokens in one pass, padding included.
            precondition: "adam" gives the direction of AdamW's step, "factors" the gradient divided
                by the factors that were fitted, None the gradient.

        Raises:
            InputError: a batch does not fit the device's memory.
        """
        for batch, chosen, ids in self._split(rows, batch_tokens):
            with self._explain_memory(ids):
                total = torch.zeros(len(chosen), self._dim, device=self._lm.device)
                for at, name, gradient in self._directions(chosen, ids, precondition):
                    place, sign = self._sketch[name]
                    total[at].index_add_(1, place, gradient.flatten(1) * sign)
                values = normalize(total, dim=1).half().cpu().numpy()
            yield Batch(batch, values)

    def compute_target_means(
        self, tasks: Sequence[Sequence[TokenRow]], *, batch_tokens: int
    ) -> Mapping[str, torch.Tensor]:
        """Return (t, weights) float32 of each matrix: the mean of the unit gradients of a task.

        Args:
            tasks: rows of each of the t tasks, each with a scored token.
            batch_tokens: tokens in one pass, padding included.

        Raises:
            InputError: a batch does not fit the device's memory.
        """
        means = {
            name: torch.zeros(len(tasks), part.weight.numel(), device=self._lm.device)
            for name, part in self._modules.items()
        }
        for task, rows in enumerate(tasks):
            for _, chosen, ids in self._split(rows, batch_tokens):
                with self._explain_memory(ids):
                    # a row's length is known once all its matrices are
                    parts = [(at, name, part.flatten(1)) for at, name, part in self._directions(chosen, ids, None)]
                    square = torch.zeros(len(chosen), device=self._lm.device)
                    for at, _, part in parts:
                        square[at] += part.square().sum(dim=1)
                    scale = _invert_roots(square) / len(rows)
                    with full_precision():
                        for at, name, part in parts:
                            means[name][task] += scale[at] @ part
        return means

    def compute_cosines(
        self,
        rows: Sequence[TokenRow],
        means: Mapping[str, torch.Tensor],
        *,
        batch_tokens: int,
        precondition: Precondition | None,
    ) -> Iterator[Batch]:
        """Yield (b, t) float32: the mean cosine of each row's direction with a task's gradients.

        Nothing is sketched: a product with t vectors is exact, and as cheap.

        Args:
            rows: as for `compute_batches`.
            means: of `compute_target_means`.
            batch_tokens: tokens in one pass, padding included.
            precondition: as for `compute_batches`.

        Raises:
            InputError: a batch does not fit the device's memory.
        """
        n_tasks = len(next(iter(means.values())))
        for batch, chosen, ids in self._split(rows, batch_tokens):
            with self._explain_memory(ids), full_precision():
                product = torch.zeros(len(chosen), n_tasks, device=self._lm.device)
                square = torch.zeros(len(chosen), device=self._lm.device)
                for at, name, gradient in self._directions(chosen, ids, precondition):
                    part = gradient.flatten(1)
                    product[at] += part @ means[name].T
                    square[at] += part.square().sum(dim=1)
                values = (product * _invert_roots(square)[:, None]).cpu().numpy()
            yield Batch(batch, values)

    def _split(
        self, rows: Sequence[TokenRow], batch_tokens: int
    ) -> Iterator[tuple[NDArray[np.int64], list[TokenRow], NDArray[np.int64]]]:
        """Yield batches of rows: their positions, the rows, and their padded ids."""
        n_read = np.array([row.n_read for row in rows], dtype=np.int64)
        budget = self._lm.limit_batch_tokens(batch_tokens)
        budget = budget if self._lm.device.type == "cpu" else max(1, budget // GPU_BATCH_SHARE)
        for batch in token_batches(n_read, budget):
            chosen = [rows[i] for i in batch]
            yield batch, chosen, padded(self._lm, [row.ids[: row.n_read] for row in chosen])

    @contextmanager
    def _explain_memory(self, ids: NDArray[np.int64]) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise InputError(
                f"model '{self._lm.name}': gradients of a batch of {ids.shape} tokens must fit the device's memory "
                f"and do not; set batch_tokens lower, or use another device"
            ) from None

    def _directions(
        self, rows: Sequence[TokenRow], ids: NDArray[np.int64], precondition: Precondition | None
    ) -> Iterator[tuple[slice, str, torch.Tensor]]:
        """Yield (k, out, in) float32 of each matrix, preconditioned."""
        for at, name, gradient in self._gradients(rows, ids):
            if precondition == "adam":
                gradient = adam_direction(gradient, *self._moments[name], self._state.step)
            elif precondition == "factors" and name in self._factors:
                factor = self._factors[name]
                gradient = factor @ gradient if name.endswith(FIRST) else gradient @ factor
            yield at, name, gradient

    def _run(
        self, rows: Sequence[TokenRow], ids: NDArray[np.int64]
    ) -> tuple[torch.Tensor, list[tuple[str, torch.Tensor, torch.Tensor]], Sequence[torch.Tensor]]:
        """Return the losses of rows, each call of a matrix, and what comes back to its outputs."""
        # what each matrix was given and made, once per call: some models (HRM) run their layers
        # several times
        calls: list[tuple[str, torch.Tensor, torch.Tensor]] = []

        def watch(name: str) -> Any:
            def keep(_: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                if output.requires_grad:
                    calls.append((name, arguments[0].detach(), output))

            return keep

        hooks = [part.register_forward_hook(watch(name)) for name, part in self._modules.items()]
        try:
            with torch.enable_grad(), full_precision():
                losses = self._losses(rows, ids)
        finally:
            for hook in hooks:
                hook.remove()
        others = sorted(self._modules.keys() - {name for name, _, _ in calls})
        with full_precision():
            returned = torch.autograd.grad(losses.sum(), [output for _, _, output in calls], retain_graph=bool(others))
        return losses, calls, returned

    def _gradients(self, rows: Sequence[TokenRow], ids: NDArray[np.int64]) -> Iterator[tuple[slice, str, torch.Tensor]]:
        """Yield (k, out, in) float32 of each matrix: gradients of the mean losses of rows."""
        losses, calls, returned = self._run(rows, ids)
        others = sorted(self._modules.keys() - {name for name, _, _ in calls})
        gradients: dict[str, torch.Tensor] = {}
        for (name, inputs, _), back in zip(calls, returned, strict=True):
            if inputs.shape[:-1].numel() != ids.size:
                raise InputError(
                    f"gradient: a layer with an adapter must read all tokens of a row, and '{name}' of "
                    f"'{self._lm.name}' reads some of them; choose another model"
                )
            shape = (*ids.shape, -1)  # OPT hands its tokens on in one row
            with full_precision():
                # the gradient of a row: what came back times what went in, summed over its tokens
                part = torch.einsum("bto,bti->boi", back.float().reshape(shape), inputs.float().reshape(shape))
            gradients[name] = gradients[name] + part if name in gradients else part
        yield from ((slice(None), name, gradient) for name, gradient in gradients.items())
        yield from self._row_by_row(losses, others)

    def _row_by_row(self, losses: torch.Tensor, names: Sequence[str]) -> Iterator[tuple[slice, str, torch.Tensor]]:
        """Yield (1, out, in) float32 of matrices that are never called: one backward pass per row.

        Those of peft on the router and the experts of a mixture are of this kind.
        """
        for i, loss in enumerate(losses):
            if not names:
                return
            weights = [self._modules[name].weight for name in names]
            with full_precision():
                returned = torch.autograd.grad(loss, weights, retain_graph=i + 1 < len(losses), allow_unused=True)
            pairs = [(name, each) for name, each in zip(names, returned, strict=True) if each is not None]
            yield from ((slice(i, i + 1), name, each.float()[None]) for name, each in pairs)
            # a matrix that nothing uses has no gradient in any row
            names = [name for name, _ in pairs]

    def _losses(self, rows: Sequence[TokenRow], ids: NDArray[np.int64]) -> torch.Tensor:
        """Return (b,) float32 mean losses of the rows."""
        lm = self._lm
        at, targets, n_scored = predictions(rows, width=ids.shape[1], shift=1)
        where = torch.from_numpy(at).to(lm.device)
        inputs = torch.from_numpy(ids).to(lm.device)
        if lm.is_run_whole:
            logits = lm.model(input_ids=inputs, use_cache=False).logits.flatten(0, 1)[where]
        else:  # the vocabulary is wide: logits of scored positions alone
            hidden = lm.body(input_ids=inputs, use_cache=False).last_hidden_state
            logits = lm.model.get_output_embeddings()(hidden.flatten(0, 1)[where])
        losses = cross_entropy(logits.float(), torch.from_numpy(targets).to(lm.device), reduction="none")
        share = np.repeat(1.0 / n_scored, n_scored).astype(np.float32)
        row_of = torch.from_numpy(np.repeat(np.arange(len(rows)), n_scored)).to(lm.device)
        weighted = losses * torch.from_numpy(share).to(lm.device)
        return weighted.new_zeros(len(rows)).index_add(0, row_of, weighted)
