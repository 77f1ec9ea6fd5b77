"""Adapters that have learned other data first: what training on one's own rows then goes on from.

    ROOT/trained/v1/KEY/{adapter_model.safetensors, adapter_config.json, ..., manifest.json}

Each is trained once and kept by its content; a killed call continues from the last checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.dataset import Dataset
from thresher.experiments.cells.cell import compute_cell_key
from thresher.experiments.experiment import Experiment
from thresher.selection.pool_adapters import CHECKPOINTS, get_adapter_cache
from thresher.trainer.engine.tokenization import require_rows

ROLE = "start"


def train_start(experiment: Experiment, rows: Dataset, *, seed: int) -> Path:
    """Return the folder of an adapter that has learned some rows, trained here or before.

    Args:
        experiment: model, settings and labels.
        rows: to learn.
        seed: of the training.

    Raises:
        InputError: none of the rows can be learned.
    """
    context = experiment.build_context(rows, seed=seed)
    key = digest({"role": ROLE, "training": compute_cell_key(context)})

    def write(work: Path) -> None:
        from thresher.trainer.engine.fit import fit
        from thresher.trainer.engine.lora import save_adapter
        from thresher.trainer.runs import tokenize_rows

        checkpoints = work / CHECKPOINTS
        examples = tokenize_rows(context, context.split.train)
        require_rows(examples, "candidate", n_vocabulary=context.base.n_vocabulary)
        trained = fit(context, examples.rows, seed=seed, folder=checkpoints, run=ROLE)
        save_adapter(trained.model, work)
        rmtree(checkpoints, ignore_errors=True)
        content = {"format": FORMAT, "kind": ROLE, "identity": key, "model": context.identity()["model"]}
        content["n_steps"] = trained.history.step
        write_atomic(work / MANIFEST, Manifest(content).to_json())

    return get_adapter_cache().make(key, write)
