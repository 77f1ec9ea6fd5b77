"""Pre-train the tiny Llama that the package ships, from random weights, on one CPU core.

    python data/make_causal_lm.py --data FOLDER --work FOLDER [--steps N]

FOLDER of `--data` holds `gsm8k/train.jsonl`, `gsm8k/test.jsonl`, `wikisql/wikisql.json.bz2` and
`t0/t0_pool.jsonl.gz`; what is read from them is in `causal_lm_corpus.py`. The tokenizer is trained
first, on the same text. A killed run goes on with the same command: a batch depends on its step
alone and the checkpoint holds weights and optimizer state, so on the same machine the weights end
as those of an undisturbed run. How a step is taken is in `causal_lm_training.py`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import causal_lm_corpus as corpus_text
import numpy as np
import torch
from causal_lm_corpus import BOS, END, PAD, ROLES, SPECIAL, Corpus, Packed
from causal_lm_training import SEED, Batches, Loss, Recipe, Run, held_out_loss, loss_sum, masked_attention, n_learned
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

OUT = Path(__file__).parents[1] / "thresher" / "models" / "tiny-llama"
RECORD = Path(__file__).parent / "causal_lm"
VOCABULARY = 4_096
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 672,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1_024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
# Turns with their markers; the assistant's words and the end of its turn are what fine-tuning
# learns. Tools and their calls are JSON.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- if tools -%}{{- '<|system|>' + (tools | tojson) + eos_token -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}"
    "{{- raise_exception('no turn of role ' + message['role']) -}}{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- set words = (message['content'] or '') + (message['tool_calls'] | tojson if message['tool_calls'] else '') -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- words + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- words + eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


# -- tokenizer
# --------------------------------------------------------------------------------------------------


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Learn a byte-level BPE: every byte has a token, digits stand alone."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and a tokenizer_config.json with the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": SHAPE["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {f"{role}_token": f"<|{role}|>" for role in ROLES},
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


# -- model
# --------------------------------------------------------------------------------------------------


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Draw the weights."""
    ids = {name: tokenizer.token_to_id(token) for name, token in (("bos", BOS), ("eos", END), ("pad", PAD))}
    config = LlamaConfig(**SHAPE, **{f"{name}_token_id": code for name, code in ids.items()})
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the last matrix of each branch starts small, whatever the depth
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                matrix.mul_(1 / math.sqrt(2 * config.num_hidden_layers))
    ALL_ATTENTION_FUNCTIONS.register("masked", masked_attention)
    model.set_attn_implementation("masked")
    return model


# -- training
# --------------------------------------------------------------------------------------------------


def pretrain(run: Run, packed: dict[int, Packed], held_out: dict[int, Packed], options: argparse.Namespace) -> None:
    """Train to the last step; save and measure on the way."""
    batches = Batches(packed, run.recipe.batch_tokens)
    loss: Loss = torch.compile(loss_sum, dynamic=False) if options.compile else loss_sum
    saved_at = time.perf_counter()
    while len(run.log) < run.recipe.steps:
        run.step(loss, batches)
        is_last = len(run.log) == run.recipe.steps
        if len(run.log) % options.measure_every == 0 or is_last:
            value = held_out_loss(run.model, loss, held_out, run.recipe.batch_tokens)
            run.log[-1]["held_out_loss"] = round(value, 4)
        if len(run.log) % 10 == 0 or is_last:
            print(json.dumps(run.log[-1]), flush=True)
        if time.perf_counter() - saved_at > options.save_every_s or is_last:
            run.save()
            export(run.model, options.work / "model")
            saved_at = time.perf_counter()


# -- what is shipped
# --------------------------------------------------------------------------------------------------


def export(model: LlamaForCausalLM, folder: Path) -> None:
    """Write float16 weights and configuration; the model goes on as it was."""
    shipped = LlamaForCausalLM(model.config.__class__(**{**model.config.to_dict(), "dtype": "float16"}))
    shipped.load_state_dict(model.state_dict())
    shipped.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors gives it to the owner alone


def write_curve(log: list[dict[str, Any]], folder: Path) -> None:
    """Write the loss by step as a table and as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(log[0]))
        writer.writeheader()
        writer.writerows(log)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    tokens = [entry["tokens"] / 1e6 for entry in log]
    axes.plot(tokens, [entry["train_loss"] for entry in log], linewidth=0.5, label="training, one step")
    measured = [entry for entry in log if entry["held_out_loss"] is not None]
    axes.plot([e["tokens"] / 1e6 for e in measured], [e["held_out_loss"] for e in measured], label="held out")
    axes.set(xlabel="million tokens", ylabel="nats per token", title="Pre-training of tiny-llama")
    axes.legend()
    figure.savefig(folder / "loss.png", dpi=110)
    plt.close(figure)


def corpus_list(corpus: Corpus, packed: dict[int, Packed]) -> dict[str, Any]:
    """Return what was learned from and what was held out, in numbers."""

    def size(documents: list[corpus_text.Document]) -> dict[str, int]:
        return {"documents": len(documents), "bytes": sum(len(document.plain.encode()) for document in documents)}

    return {
        "train": {
            name: {
                **size(documents),
                "repeats": corpus_text.REPEATS[name],
                "dropped_for_overlap": corpus.n_dropped[name],
            }
            for name, documents in corpus.train.items()
        },
        "held_out": {name: size(documents) for name, documents in corpus.held_out.items()},
        "windows": {str(window): len(part.tokens) for window, part in packed.items()},
        "tokens_in_one_pass": sum(n_learned(part.document) for part in packed.values()),
    }


def prepare(options: argparse.Namespace) -> tuple[Tokenizer, dict[int, Packed], dict[int, Packed]]:
    """Return tokenizer and windows, from the work folder where they are there."""
    work, cached = options.work, options.work / "windows.npz"
    work.mkdir(parents=True, exist_ok=True)
    if not cached.exists():
        corpus = corpus_text.read_corpus(options.data)
        documents = corpus_text.learned_documents(corpus, random.Random(SEED))
        tokenizer = train_tokenizer(document.plain for part in corpus.train.values() for document in part)
        save_tokenizer(tokenizer, work / "model")
        train = corpus_text.pack_all(documents, tokenizer)
        measured = [document for name, part in corpus.held_out.items() if name != "gsm8k-test" for document in part]
        held_out = corpus_text.pack_all(measured, tokenizer)
        (work / "corpus.json").write_text(json.dumps(corpus_list(corpus, train), indent=2) + "\n", encoding="utf-8")
        arrays: dict[str, Any] = {}
        for name, part in (("train", train), ("held_out", held_out)):
            for window, content in part.items():
                arrays |= {f"{name}-{window}-tokens": content.tokens, f"{name}-{window}-document": content.document}
        np.savez(cached, **arrays)
    with np.load(cached) as stored:
        packed: dict[str, dict[int, Packed]] = {"train": {}, "held_out": {}}
        for key in stored.files:
            name, window, kind = key.split("-")
            if kind == "tokens":
                document = stored[f"{name}-{window}-document"]
                packed[name][int(window)] = Packed(tokens=stored[key], document=document)
    tokenizer = Tokenizer.from_file(str(work / "model" / "tokenizer.json"))
    return tokenizer, packed["train"], packed["held_out"]


def ship(options: argparse.Namespace, run: Run, out: Path) -> None:
    """Copy model and tokenizer to the package, and the record of the run beside this script."""
    export(run.model, out)
    save_tokenizer(Tokenizer.from_file(str(options.work / "model" / "tokenizer.json")), out)
    write_curve(run.log, RECORD)
    (RECORD / "corpus.json").write_bytes((options.work / "corpus.json").read_bytes())
    result = {
        "recipe": asdict(run.recipe),
        "shape": SHAPE,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "bytes": (out / "model.safetensors").stat().st_size,
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "seed": SEED,
        "last": run.log[-1],
    }
    (RECORD / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Prepare, train, ship."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with gsm8k, wikisql and t0")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimizer steps of 16,384 tokens")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to ship to")
    parser.add_argument("--save-every-s", type=float, default=180, help="seconds between checkpoints")
    parser.add_argument("--measure-every", type=int, default=100, help="steps between held-out losses")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without a C++ compiler; slower")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, train, held_out = prepare(options)
    run = Run(new_model(tokenizer), Recipe(steps=options.steps), options.work)
    pretrain(run, train, held_out, options)
    ship(options, run, options.out)


if __name__ == "__main__":
    main()
