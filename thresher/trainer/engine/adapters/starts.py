"""Other starts of low-rank matrices than zero, and how they leave the base as it was.

PiSSA (Meng et al. 2024, arXiv:2404.02948), OLoRA (Buyukakyuz 2024, arXiv:2406.01775) and CorDA
(Yang et al. 2024, arXiv:2406.05223) start with B_0 A_0, a part of the weights W, and train on
W - s B_0 A_0. peft changes the base for that, so that the adapter fits no other copy of it. Here
the base stays: a frozen second adapter subtracts s B_0 A_0, and the saved one is their sum,

    s B A - s B_0 A_0 = s [B, -B_0] [A; A_0],

an ordinary LoRA adapter of twice the rank. EVA (Paischer et al. 2024, arXiv:2410.07170) starts A
with the directions in which a layer's inputs are largest, B with zero, and here gives each layer
the same rank. A prefix starts with the keys and values of the first tokens of the rows: with random
ones, a model is first destroyed, and few rows do not repair it (Li and Liang 2021,
arXiv:2101.00190, section 7.4).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from thresher.artifacts.disk_errors import writing_safetensors
from thresher.errors import InputError
from thresher.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from thresher.trainer.engine.adapters.kinds import FROM_ROWS, FROM_WEIGHTS
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.tokenization import Example

N_ROWS = 128  # whose layer inputs EVA and CorDA read
START = "start"  # name of the frozen adapter
DAMPING = 0.01  # of CorDA's second moments, times their mean


def set_start(model: Any, kind: str, rows: Sequence[Example], *, device: Any) -> None:
    """Give the matrices of a fresh LoRA adapter the start of their kind.

    Args:
        model: with a peft adapter, not wrapped.
        kind: of the adapter; others than those of this file are left alone.
        rows: of the training, in the given order.
        device: that the rows are read on.

    Raises:
        InputError: a layer is too small for the rank, or no plain linear layer.
    """
    if kind == "prefix":
        _read_prefix(model, rows, device)
    if kind not in {*FROM_WEIGHTS, *FROM_ROWS, "orthogonal"}:
        return
    moments = measure_inputs(model, rows, device) if kind in FROM_ROWS else {}
    for name, layer in _list_layers(model):
        if "default" not in layer.lora_A:
            raise InputError(f"train: adapter '{kind}' needs linear layers, found another one in {name}; name others")
        weight = layer.get_base_layer().weight.data
        rank, scaling = layer.r["default"], layer.scaling["default"]
        if rank > min(layer.in_features, layer.out_features):
            raise InputError(
                f"train: adapter '{kind}' needs layers with a side of at least its rank {rank}, found {name} of "
                f"{layer.out_features} x {layer.in_features}; lower lora_rank"
            )
        if kind == "eva":
            _set(layer, _find_directions(moments[name], rank), None)
        elif kind == "corda":
            plain = weight.T if layer.fan_in_fan_out else weight
            _set(layer, *_split_by_inputs(plain.float(), moments[name], rank, scaling))
        else:  # peft's own, of which only the matrices are taken
            layer.get_base_layer().weight.data = weight.clone()
            _run_peft_start(layer, kind)
            layer.get_base_layer().weight.data = weight
        _require_shapes(layer, kind, name)
        if kind in FROM_WEIGHTS:
            _subtract_start(layer)


def _read_prefix(model: Any, rows: Sequence[Example], device: Any) -> None:
    """Set the virtual tokens to what the base makes of the first tokens of the rows."""
    from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values

    n_tokens = int(model.active_peft_config.num_virtual_tokens)
    text = [token for row in rows[:n_tokens] for token in row.input_ids]
    if not text:
        return
    tokens = torch.tensor([text * (1 + n_tokens // len(text))], device=device)[:, :n_tokens]
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        cache = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=True).past_key_values
    pairs = [(layer.keys, layer.values) for layer in cache.layers]
    initialize_kv_prefix_from_past_key_values(model, past_key_values=pairs)


def _list_layers(model: Any) -> Iterable[tuple[str, Any]]:
    from peft.tuners.lora.layer import LoraLayer

    return [(name, part) for name, part in model.named_modules() if isinstance(part, LoraLayer)]


def _run_peft_start(layer: Any, kind: str) -> None:
    if kind == "pissa":
        layer.pissa_init("default", "pissa")
    elif kind == "olora":
        layer.olora_init("default")
    else:
        layer.orthogonal_init("default")


def _set(layer: Any, down: torch.Tensor, up: torch.Tensor | None) -> None:
    """Set A to (rank, n_in) and B to (n_out, rank); B stays zero without a value."""
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(down)
        if up is not None:
            layer.lora_B["default"].weight.copy_(up)


def _require_shapes(layer: Any, kind: str, name: str) -> None:
    rank = layer.r["default"]
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    if tuple(down.shape) != (rank, layer.in_features) or tuple(up.shape) != (layer.out_features, rank):
        raise InputError(
            f"train: adapter '{kind}' needs plain linear layers, found another one in {name}; take another adapter"
        )


def _subtract_start(layer: Any) -> None:
    """Add the frozen adapter that takes away what the trained one starts with."""
    from peft import LoraConfig

    down, up = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
    config = LoraConfig(r=layer.r["default"], lora_alpha=layer.lora_alpha["default"])
    config.use_rslora = layer.use_rslora["default"]
    layer.update_layer(START, config.r, config.lora_alpha, config=config)
    layer.set_adapter(["default", START])
    with torch.no_grad():
        layer.lora_A[START].weight.copy_(down)
        layer.lora_B[START].weight.copy_(-up)
    for part in (layer.lora_A[START], layer.lora_B[START]):
        part.weight.requires_grad_(False)


def measure_inputs(model: Any, rows: Sequence[Example], device: Any) -> dict[str, torch.Tensor]:
    """Return sum_t x_t x_t^T of what each adapted layer reads of the first rows: (n_in, n_in).

    Embeddings read no vectors, and are left out.

    Args:
        model: with a peft adapter; it is put into evaluation mode.
        rows: of which the first `N_ROWS` are read.
        device: that they are read on.

    Raises:
        InputError: a layer reads none of them.
    """
    totals: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def add(_: Any, inputs: Any, __: Any) -> None:
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            totals[name] = totals.get(name, torch.zeros(())) + (x.T @ x).cpu()

        return add

    layers = [(name, layer) for name, layer in _list_layers(model) if "default" in layer.lora_A]
    hooks = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    model.eval()
    try:
        with torch.inference_mode():
            for row in rows[:N_ROWS]:  # one at a time: nothing is padded
                model(**pad_rows([row], pad_id=0).to_device(device).inputs)
    finally:
        for hook in hooks:
            hook.remove()
    absent = [name for name, _ in layers if name not in totals]
    if absent:
        raise InputError(f"train: all adapted layers must read the rows, and {absent[0]} does not; name lora_targets")
    return totals


def _find_directions(moments: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the top right singular vectors of the inputs, (rank, n_in), the largest first."""
    vectors: torch.Tensor = torch.linalg.eigh(moments.double()).eigenvectors
    return vectors.flip(1)[:, :rank].T.float()


def _split_by_inputs(
    weight: torch.Tensor, moments: torch.Tensor, rank: int, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and B of CorDA: the part of the weights that the inputs use most.

    With C the second moments and W C = U S V^T, it is the first terms of U S (V^T C^-1), which are
    U_r U_r^T W, as U^T W C = S V^T. So C is never inverted. Each row of A gets the norm of its
    column of B, as in PiSSA: split by S, which grows with the inputs and their number, B would be
    hundreds of times as large as A, and the first steps would destroy the model.
    """
    c = moments.to(weight.device).double()
    m = weight.double() @ (c + torch.eye(len(c), device=c.device) * (c.diagonal().mean() * DAMPING))
    if len(m) <= m.shape[1]:
        u = torch.linalg.eigh(m @ m.T).eigenvectors.flip(1)[:, :rank]
    else:
        v = torch.linalg.eigh(m.T @ m).eigenvectors.flip(1)[:, :rank]
        u = torch.linalg.svd(m @ v, full_matrices=False)[0]
    terms = (u.T @ weight.double()) / scaling  # (rank, n_in)
    size = torch.linalg.vector_norm(terms, dim=1).sqrt()
    inverse = torch.where(size > size.max() * 1e-7, 1 / size, 0.0)
    return (inverse[:, None] * terms).float(), (u * size).float()


def has_start(model: Any) -> bool:
    """Tell whether a frozen adapter takes away what the trained one started with."""
    return any(START in layer.r for _, layer in _list_layers(model))


def save_with_start(model: Any, folder: Path) -> None:
    """Rewrite a saved adapter as the sum of the trained and the frozen one: twice the rank."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / ADAPTER_WEIGHTS)
    for name, layer in _list_layers(model):
        down, up = (f"{name}.lora_{side}.weight" for side in "AB")
        start_down, start_up = layer.lora_A[START].weight, layer.lora_B[START].weight
        weights[down] = torch.cat([weights[down], start_down.detach().cpu()], dim=0).contiguous()
        weights[up] = torch.cat([weights[up], start_up.detach().cpu()], dim=1).contiguous()
    with writing_safetensors(folder):
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
    growth = 2**0.5 if config.get("use_rslora") else 2  # alpha / rank, or alpha / sqrt(rank), stays
    config |= {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"]}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
