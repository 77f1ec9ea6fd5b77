"""Distill the static encoder that the package ships from the all-MiniLM-L6-v2 of its extra.

    python data/make_static_encoder.py [--check banking77/train.csv banking77/test.csv]

The recipe is model2vec's (Tulkens & van Dongen 2024, doi:10.5281/zenodo.17270888;
github.com/MinishLab/model2vec): forward every vocabulary entry alone through the transformer,
mean-pool its token states, reduce by PCA, weight by smooth inverse frequency a / (a + p) with p
from Zipf's law over the vocabulary's order (Arora et al. 2017, openreview.net/forum?id=SyK00v5xx),
store as int8. It is written out here because `model2vec[distill]` needs an older transformers than
the rest of the project.

Differs: int8 has one scale per token (model2vec's `weights`): finer, and sentence-transformers
reads no int8 without. The vectors of [PAD] and [UNK] are zero, so that readers that drop unknown
words (model2vec) and readers that keep them (sentence-transformers) give the same normalized
vector.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from model2vec import StaticModel
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer
from transformers import AutoModel

from thresher.models.encoders.minilm import minilm_folder

OUT = Path(__file__).parents[1] / "thresher" / "features" / "models" / "static-minilm-256"
DIMENSION = 256
SIF = 1e-4
BATCH = 512
LARGEST = 127  # of int8
KEPT_SPECIAL = ("[PAD]", "[UNK]")
DROPPED = re.compile(r"\[unused\d+\]|\[CLS\]|\[SEP\]|\[MASK\]")


def reduced_tokenizer(folder: Path) -> tuple[Tokenizer, list[int]]:
    """Return the tokenizer without entries that no text produces, and the old id of each new."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    by_old_id = sorted(spec["model"]["vocab"].items(), key=lambda item: item[1])
    tokens = [(token, old) for token, old in by_old_id if not DROPPED.fullmatch(token)]
    spec["model"]["vocab"] = {token: new for new, (token, _) in enumerate(tokens)}
    spec["added_tokens"] = [
        {**token, "id": spec["model"]["vocab"][token["content"]]}
        for token in spec["added_tokens"]
        if token["content"] in KEPT_SPECIAL
    ]
    spec.update(truncation=None, padding=None, post_processor=None)
    return Tokenizer.from_str(json.dumps(spec)), [old for _, old in tokens]


def forward_alone(folder: Path, ids: list[int]) -> NDArray[np.float32]:
    """Return (len(ids), hidden) float32: the mean state of "[CLS] token [SEP]" for each token."""
    model = AutoModel.from_pretrained(folder).eval()
    full = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cls, sep = full.token_to_id("[CLS]"), full.token_to_id("[SEP]")
    states = []
    with torch.inference_mode():
        for start in range(0, len(ids), BATCH):
            batch = torch.tensor([[cls, token, sep] for token in ids[start : start + BATCH]])
            states.append(model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state.mean(dim=1))
    return torch.cat(states).numpy().astype(np.float32)


def sif_weights(n: int) -> NDArray[np.float64]:
    """Return (n,) weights a / (a + p), p = Zipf's probability of the rank."""
    inverse_rank = 1 / np.arange(2, n + 2)
    return SIF / (SIF + inverse_rank / inverse_rank.sum())


def distil() -> StaticModel:
    """Build the static model."""
    folder = minilm_folder()
    tokenizer, old_ids = reduced_tokenizer(folder)
    states = forward_alone(folder, old_ids)
    vectors = PCA(n_components=DIMENSION, svd_solver="full").fit_transform(states) * sif_weights(len(states))[:, None]
    vectors[[tokenizer.token_to_id(token) for token in KEPT_SPECIAL]] = 0
    scale = np.maximum(np.abs(vectors).max(axis=1), np.finfo(np.float32).tiny) / LARGEST
    return StaticModel(
        vectors=np.rint(vectors / scale[:, None]).astype(np.int8),
        weights=scale.astype(np.float32),
        tokenizer=tokenizer,
        config={
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "tokenizer_name": "sentence-transformers/all-MiniLM-L6-v2",
            "apply_pca": DIMENSION,
            "sif_coefficient": SIF,
            "hidden_dim": DIMENSION,
            "seq_length": 1_000_000,
            "pooling": "mean",
        },
        normalize=True,
        max_length=None,
    )


def save(model: StaticModel, folder: Path) -> None:
    """Write the model; the card beside it is kept by hand."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else None
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors gives it to the owner alone
    # sentence-transformers opens the folder of every module
    (folder / "1_Normalize").mkdir(exist_ok=True)
    (folder / "1_Normalize" / "config.json").write_text("{}\n")
    if text is not None:
        card.write_text(text, encoding="utf-8")


def accuracy(encoder: str, train: Path, test: Path) -> tuple[float, float]:
    """Return the test accuracy of logistic regression on embeddings, and rows encoded per s."""
    from thresher.models.encoders.load import load_encoder

    rows = {}
    for name, path in (("train", train), ("test", test)):
        with path.open(newline="", encoding="utf-8") as file:
            rows[name] = list(csv.DictReader(file))
    model = load_encoder(encoder)
    started = time.perf_counter()
    x = {name: model.encode([row["text"] for row in part]) for name, part in rows.items()}
    rate = sum(map(len, x.values())) / (time.perf_counter() - started)
    y = {name: [row["category"] for row in part] for name, part in rows.items()}
    fitted = LogisticRegression(C=20, max_iter=1000).fit(x["train"], y["train"])
    return float(fitted.score(x["test"], y["test"])), rate


def main() -> None:
    """Distil, save, and on request measure both encoders on a labeled CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", nargs=2, type=Path, metavar=("TRAIN", "TEST"), help="CSV files with text,category")
    parser.add_argument("--only-check", action="store_true", help="measure the model that is there")
    arguments = parser.parse_args()
    if not arguments.only_check:
        started = time.perf_counter()
        save(distil(), OUT)
        size = (OUT / "model.safetensors").stat().st_size / 1e6
        print(f"{OUT}: {size:.1f} MB in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    for encoder in ("static", "minilm") if arguments.check else ():
        score, rate = accuracy(encoder, *arguments.check)
        print(f"{encoder}: accuracy {score:.4f}, {rate:.0f} rows/s")


if __name__ == "__main__":
    main()
