"""What all tests share: a temporary feature cache, and tiny models, so nothing is downloaded."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from thresher.errors import NotFoundError

ROOT = Path(__file__).parent
LONGEST = [
    "test_docs.py",
    "test_kill.py",
    "test_examples.py",
    "test_worker_pool.py",
    "test_comparison.py",
    "test_learning_curve.py",
    "test_tuning.py",
    "test_advise.py",
]
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}

MANY_MODULES = 200  # as torch, transformers and peft have

os.environ.setdefault("HF_HUB_OFFLINE", "1")
gc.set_threshold(10_000)  # imports make many objects and little garbage


def pytest_configure():
    """Refuse an installation older than pyproject.toml: plug-ins would not be found."""
    declared = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, points in declared.items():
        stale = set(points) - {point.name for point in entry_points(group=group)}
        if stale:
            pytest.exit(
                f"{group}: {sorted(stale)} are not installed; run `make setup`, or `pip install --no-deps -e .`"
            )


n_frozen_modules = 0


def freeze_modules():
    """Let no collection of garbage look at modules and tests again: a full one takes a second."""
    global n_frozen_modules
    from thresher.numeric.memory import freeze_for_good

    gc.collect()
    freeze_for_good()
    n_frozen_modules = len(sys.modules)


def pytest_collection_finish():
    freeze_modules()


def pytest_runtest_logfinish():
    """Freeze what tests have imported: each training ends with a collection."""
    if len(sys.modules) > n_frozen_modules + MANY_MODULES:
        freeze_modules()


def pytest_collection_modifyitems(items):
    """Run the files whose tests take longest first, so that no process waits for another's last."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def session_cache():
    """Give the whole suite one temporary feature cache: tests never touch the user's."""
    with tempfile.TemporaryDirectory(prefix="thresher-test-cache-") as folder:
        os.environ["THRESHER_CACHE"] = folder
        yield
        del os.environ["THRESHER_CACHE"]


@pytest.fixture(scope="session", autouse=True)
def refuse_the_default_model():
    """Let no test run a language model that it does not name: the default is large."""
    from thresher.models.causal_lm import default_model

    def fail():
        raise AssertionError("a language model must be named here: model='tiny' is the toy")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_model, "has_smollm2", fail)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_general_set(tmp_path_factory: pytest.TempPathFactory):
    """Let tests that do not ask for it measure forgetting on a few rows of the embedded set."""
    from thresher.trainer.untouched import settings

    folder, small = tmp_path_factory.mktemp("general"), []
    for path in settings.EMBEDDED:
        lines = path.read_text(encoding="utf-8").splitlines()[::30]
        small.append(folder / path.name)
        small[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "EMBEDDED", tuple(small))
        yield small


@pytest.fixture(scope="session")
def forks(session_cache, small_general_set, tmp_path_factory: pytest.TempPathFactory):
    """Start commands as processes of their own that need not import anything."""
    from tests.forks import ForkServer

    with ForkServer(tmp_path_factory.mktemp("forks"), small_general_set) as server:
        yield server


CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}"
)
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "what is the capital of France? Paris is.",
    "add 2 and 3: 5",
] * 4


def write_tokenizer(folder: Path, *, chat_template: str | None) -> None:
    """Write a byte-level BPE tokenizer of 320 tokens, whose <|im_end|> ends a sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = chat_template
    fast.save_pretrained(folder)


def save_random_model(kind: Any, config: Any, folder: Path) -> Path:
    """Save a model with the random weights of seed 0, and return its folder."""
    import torch

    torch.set_num_threads(1)  # tiny matrices: more threads only wait for one another
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama: hidden 32, 2 layers, 512 positions, ChatML template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    write_tokenizer(folder, chat_template=CHATML)
    config = LlamaConfig(
        vocab_size=320,
        **TINY,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        initializer_range=0.2,  # a random model of this size whose logits can move
    )
    return save_random_model(LlamaForCausalLM, config, folder)


@pytest.fixture(scope="session")
def plain_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same Llama without a chat template."""
    folder = tmp_path_factory.mktemp("plain-llama")
    shutil.copytree(tiny_llama, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    write_tokenizer(folder, chat_template=None)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random BERT: hidden 32, 2 layers, 64 positions, words of CORPUS."""
    return write_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))


def write_tiny_bert(folder: Path) -> Path:
    """Write a random BERT, and return its folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?."
    words = ["red", "green", "blue", "apple", "leaf", "sky", "the", "is", "a"]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *words,
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(vocab={word: code for code, word in enumerate(vocabulary)}).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        **TINY,
        max_position_embeddings=64,
        # at the usual 0.02, a random encoder gives every text the same vector
        initializer_range=0.3,
    )
    return save_random_model(BertModel, config, folder)


@pytest.fixture(scope="session")
def color_rows() -> list[dict[str, str]]:
    """Return 60 short texts of three labels, easy to tell apart."""
    things = {"red": "apple", "green": "leaf", "blue": "sky"}
    return [
        {"text": f"the {thing} is {color} {number}", "label": color}
        for number in range(20)
        for color, thing in things.items()
    ]


@pytest.fixture(scope="session")
def question_rows() -> list[dict[str, str]]:
    """Return 40 prompt/completion rows of different lengths."""
    return [
        {"prompt": f"add {a} and {b}:" + " please" * (a % 4), "completion": f"{a + b}"}
        for a in range(8)
        for b in range(5)
    ]


@dataclass
class Rows:
    """What the feature arrow asks of a dataset, and nothing else."""

    lines: list[str]
    kind: str = "text"
    labels: list[str] | None = None
    columns: dict[str, pl.Series] = field(default_factory=dict)
    files: list[str] | None = None
    given: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def frame(self) -> pl.DataFrame:
        n = len(self.lines)
        return pl.DataFrame(
            {
                "row_id": [f"row{i}" for i in range(n)],
                "response": self.labels or self.lines,
                "file": self.files or ["pool.jsonl"] * n,
            },
            schema=dict.fromkeys(("row_id", "response", "file"), pl.String),
        )

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def texts(self) -> pl.Series:
        return pl.Series("text", self.lines, dtype=pl.String)

    def column(self, name: str) -> pl.Series:
        if name not in self.columns:
            raise NotFoundError(f"column '{name}' not found")
        return self.columns[name]


WORDS = [
    "red",
    "blue",
    "mug",
    "knife",
    "tent",
    "lamp",
    "for",
    "the",
    "camping",
    "kitchen",
    "steel",
    "small",
    "12",
    "ml",
]


def sentences(n: int, *, seed: int = 0, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{i} " + " ".join(rng.choice(WORDS, size=rng.integers(1, longest))) for i in range(n)]


@pytest.fixture
def cache(tmp_path):
    from thresher.features import FeatureCache

    return FeatureCache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def own_default_cache(request, tmp_path_factory, monkeypatch):
    """Give each test of what fills the cache a default cache of its own."""
    if request.path.relative_to(ROOT).parts[0] in ("cache", "features", "models"):
        monkeypatch.setenv("THRESHER_CACHE", str(tmp_path_factory.mktemp("default-cache")))


@pytest.fixture
def make_rows():
    return Rows


@pytest.fixture
def make_sentences():
    return sentences


@pytest.fixture
def memory():
    """Return the storage behind memory://, empty."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture(scope="module")
def tiny_nli(tiny_bert, tmp_path_factory):
    import shutil

    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny-nli")
    shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
    config = BertConfig.from_pretrained(tiny_bert, num_labels=3)
    config.id2label = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    config.label2id = {label: code for code, label in config.id2label.items()}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder
