"""What `train --diagnose` costs: seconds of processor time for all matrices of a model.

    python benchmarks/diagnosis.py

Fresh adapters of rank 8 whose B is drawn at random, so that the update of each matrix has 2 % of
the norm of its weights, as after a training, or 200 %, where new directions make it look at all
singular vectors of the base. One run each.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from thresher.trainer.context import resolve_run
from thresher.trainer.diagnosis import diagnose_adapter
from thresher.trainer.engine.fit import build_model
from thresher.trainer.settings import TrainSettings

RESULT = Path(__file__).parent / "results" / "diagnosis.json"
ROWS = {
    "MiniLM": [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(8)],
    "SmolLM2-135M-Instruct": [{"prompt": f"row {i}", "response": "yes"} for i in range(8)],
}


def build(name: str) -> Any:
    """Return the default base of a task with a fresh adapter."""
    model = None if name == "MiniLM" else "smollm2"
    context = resolve_run(ROWS[name], model=model, settings=TrainSettings(precision="fp32"), seed=0)
    return build_model(context, seed=0).eval()


def set_updates(model: Any, size: float) -> None:
    """Give each update a norm relative to its weights."""
    from peft.tuners.lora.layer import LoraLayer

    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            with torch.no_grad():
                up = layer.lora_B["default"].weight
                up.normal_()
                up *= size * layer.get_base_layer().weight.norm() / layer.get_delta_weight("default").norm()


def main() -> None:
    """Time both models at both sizes."""
    results = []
    for name in ROWS:
        model = build(name)
        for size in (0.02, 2.0):
            set_updates(model, size)
            started = time.process_time()
            section = diagnose_adapter(model)
            seconds = round(time.process_time() - started, 2)
            counts = {"matrices": len(section["matrices"]), "directions": section["directions"]}
            moved = section["layers"][0]["moved"]
            results.append({"model": name, "size": size, "moved": moved, "seconds": seconds, **counts})
            results[-1]["intruders"] = section["intruders"]
            print(results[-1], flush=True)
    RESULT.write_text(json.dumps({"threads": torch.get_num_threads(), "runs": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
