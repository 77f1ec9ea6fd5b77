"""Tries the files of `thresher export` with the trainers themselves, as far as they are installed.

    python tools/try_exports.py [--out RESULT.json]

TRL trains two steps on the rows. LLaMA-Factory's own loader reads `dataset_info.json` and brings
the rows into its form. axolotl's schemas validate the stanza, and its strategy tokenizes a row.
The lines for OpenAI are checked against the published rules. A trainer that is not installed, or
whose own packages are missing, is said to be untried.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DISABLE_VERSION_CHECK", "1")  # of LLaMA-Factory, which pins versions
ROWS = [
    {"system": "Be brief.", "instruction": f"What is {a} plus {b}?", "output": f"{a + b}"}
    for a in range(5)
    for b in range(5)
]
TEXTS = [{"text": f"The sum of {a} and 1 is {a + 1}."} for a in range(25)]


def export(rows: list[dict[str, Any]], to: str, folder: Path) -> Path:
    """Return the folder of an export of rows."""
    import thresher as th
    from thresher.subset.export import export_rows

    return export_rows(th.load(rows), to, folder)  # type: ignore[arg-type]


def try_trl(folder: Path) -> str:
    """Train two steps on conversations and on texts, and return what was done."""
    from trl import SFTConfig, SFTTrainer

    from thresher.models.causal_lm.base_model import find_base

    losses = []
    for name, rows in (("sft", ROWS), ("text", TEXTS)):
        out = export(rows, "trl", folder / name)
        module: dict[str, Any] = {"__file__": str(out / "trl.py")}
        exec(compile((out / "trl.py").read_text(), str(out / "trl.py"), "exec"), module)
        rows_read = module["load"]()
        if len(rows_read) != len(rows):
            raise AssertionError(f"{len(rows_read)} of {len(rows)} rows were read")
        settings = SFTConfig(
            output_dir=str(folder / "trained"), max_steps=2, report_to=[], use_cpu=True, bf16=False, max_length=64,
            per_device_train_batch_size=4, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = SFTTrainer(model=str(find_base("tiny").folder), args=settings, train_dataset=rows_read)
        losses.append(f"{trainer.train().training_loss:.2f}")
    told = ", ".join(losses)
    return f"SFTTrainer took 2 steps on {len(ROWS)} conversations and on {len(TEXTS)} texts (losses {told})"


def try_llama_factory(folder: Path) -> str:
    """Read the folder with LLaMA-Factory's parser, loader and converter."""
    stands_in = replace_torchaudio()
    from llamafactory.data.converter import align_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import DataArguments

    read = []
    for name, rows in (("sft", ROWS), ("text", TEXTS)):
        out = export(rows, "llama-factory", folder / name)
        [attributes] = get_dataset_list(["thresher"], str(out))
        from datasets import load_dataset

        raw = load_dataset("json", data_files=str(out / attributes.dataset_name), split="train")
        arguments = DataArguments(dataset="thresher", dataset_dir=str(out), overwrite_cache=True)
        from types import SimpleNamespace

        aligned = align_dataset(raw, attributes, arguments, SimpleNamespace(local_process_index=0))
        first = aligned[0]
        if name == "sft" and [turn["role"] for turn in (*first["_prompt"], *first["_response"])] != [
            "user",
            "assistant",
        ]:
            raise AssertionError(f"a conversation became {first}")
        if name == "sft" and first["_system"] != "Be brief.":
            raise AssertionError(f"the system turn became {first['_system']!r}")
        if name == "text" and first["_prompt"][0]["content"] != TEXTS[0]["text"]:
            raise AssertionError(f"a text became {first}")
        read.append(len(aligned))
    did = f"dataset_info.json was parsed, and {read[0]} conversations and {read[1]} texts were converted"
    return f"{did}; an empty module stood in for torchaudio" if stands_in else did


def replace_torchaudio() -> bool:
    """Put an empty module in the place of torchaudio where it is missing, and say whether it was.

    LLaMA-Factory imports it for audio, and its wheels are tied to one version of torch.
    """
    if importlib.util.find_spec("torchaudio") is not None:
        return False
    module = types.ModuleType("torchaudio")
    module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module
    return True


def try_axolotl(folder: Path) -> str:
    """Validate the stanza with axolotl's schemas."""
    import yaml
    from axolotl.utils.schemas.datasets import SFTDataset

    for name, rows in (("sft", ROWS), ("text", TEXTS)):
        out = export(rows, "axolotl", folder / name)
        [stanza] = yaml.safe_load((out / "axolotl.yaml").read_text())["datasets"]
        parsed = SFTDataset.model_validate(stanza)
        unknown = set(stanza) - set(SFTDataset.model_fields)
        if unknown:
            raise AssertionError(f"axolotl knows no {', '.join(sorted(unknown))}")
        if not (out / str(parsed.path)).is_file():
            raise AssertionError(f"{parsed.path} is not in {out}")
    return "the stanzas are valid SFTDataset configurations, for conversations and for texts"


def try_openai(folder: Path) -> str:
    """Check the lines against the rules of OpenAI's guide to fine-tuning chat models."""
    out = export(ROWS, "openai", folder / "sft")
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    if len(lines) < 10:
        raise AssertionError("at least 10 examples are required")
    for line in lines:
        roles = [turn["role"] for turn in line["messages"]]
        is_right = set(line) == {"messages"} and set(roles) <= {"system", "user", "assistant"}
        is_right &= roles[-1] == "assistant" and "system" not in roles[1:]
        is_right &= all(set(turn) <= {"role", "content", "weight"} and turn["content"] for turn in line["messages"])
        if not is_right:
            raise AssertionError(f"no line of a training file: {line}")
    return f"{len(lines)} lines have the form of a chat training file; nothing was uploaded"


TRIALS: dict[str, tuple[str | None, Callable[[Path], str]]] = {
    "trl": ("trl", try_trl),
    "llama-factory": ("llamafactory", try_llama_factory),
    "axolotl": ("axolotl", try_axolotl),
    "openai": (None, try_openai),
}


def main() -> int:
    """Try each, print what came of it, and return 1 where one refused its file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"python": sys.version.split()[0]}
    for name, (package, run) in TRIALS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                number = None if package is None else version(package)
                results[name] = {"version": number, "did": run(Path(folder))}
            except (PackageNotFoundError, ModuleNotFoundError, ImportError) as error:
                results[name] = {"untried": str(error)}
            except AssertionError as error:
                results[name] = {"refused": str(error)}
        print(name, results[name], flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    return int(any("refused" in result for result in results.values() if isinstance(result, dict)))


if __name__ == "__main__":
    sys.exit(main())
