"""Folders that others may have made with bad intent: one sentence each, within limits."""

import json
import random
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

import thresher as th
from thresher.errors import ThresherError
from thresher.features import compute, load_encoder, make_context

pytestmark = pytest.mark.skipif(
    find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)
HERE = Path(__file__).parent
MAX_SECONDS, MAX_MEGABYTES = 60, 1500  # of processor time, the processes with limits included
SAMPLE, SEED = 24, 16
COMMANDS = {
    "model": ["select", "--method", "perplexity", "--budget", "3", "--model"],
    "adapter": ["select", "--method", "perplexity", "--budget", "3", "--model"],
    "encoder": ["select", "--method", "facility-location", "--budget", "3", "--encoder"],
    "tokenizer": ["select", "--method", "length", "--budget", "3", "--tokenizer"],
    "train": ["train", "--epochs", "1", "--model"],
}


def load_cases():
    sys.path.insert(0, str(HERE))
    try:
        import hostile
        import hostile_layers  # noqa: F401 - adds its cases
    finally:
        sys.path.remove(str(HERE))
    return hostile.CASES


CASES = load_cases()
# those that end by a limit alone take their limit
QUICK = sorted(name for name in CASES if not any(word in name for word in ("slow", "pattern", "loop", "doubling")))


@pytest.fixture(scope="module")
def rows():
    turns = [
        [{"role": "user", "content": f"what is {i}?"}, {"role": "assistant", "content": "a 1 " * i}] for i in range(9)
    ]
    return [{"messages": each} for each in turns[1:]]


@pytest.fixture(scope="module")
def good(tiny_llama, tiny_bert, tmp_path_factory):
    """A good folder of each kind."""
    from peft import LoraConfig, get_peft_model
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("good")
    transformer = Transformer(str(tiny_bert), max_seq_length=48)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(folder / "encoder"))
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_llama)
    adapted.save_pretrained(folder / "adapter")
    own = {kind: folder / kind for kind in ("encoder", "adapter")}
    return dict.fromkeys(("model", "train", "tokenizer"), tiny_llama) | own


def make_folder(name, good, tmp_path):
    """Return the kind of a case and its folder; a kind alone is a good folder."""
    kind, change = CASES.get(name, (name, lambda folder: None))
    folder = shutil.copytree(good[kind], tmp_path / "folders" / name)
    change(folder)
    return kind, folder


def use(kind, folder, rows):
    """Use a folder as a command does, in this process."""
    if kind == "encoder":
        load_encoder(str(folder), device="cpu").encode([row["messages"][0]["content"] for row in rows])
    elif kind == "tokenizer":
        compute(th.load(rows), {"length"}, make_context(tokenizer=str(folder)))
    elif kind == "train":
        th.train(th.load(rows), model=str(folder), epochs=1)
    else:
        th.select(th.load(rows), "perplexity", budget=3, model=str(folder), device="cpu")


def test_there_are_ninety_hostile_folders():
    assert len(CASES) >= 90


@pytest.mark.parametrize("kind", ["model", "adapter", "encoder", "tokenizer"])
def test_the_folders_that_they_are_made_of_are_good(kind, good, rows, tmp_path):
    use(*make_folder(kind, good, tmp_path), rows)


@pytest.mark.parametrize("name", random.Random(SEED).sample(QUICK, SAMPLE))
def test_some_hostile_folders_are_refused_in_one_sentence(name, good, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, folder = make_folder(name, good, tmp_path)
    with pytest.raises(ThresherError) as caught:
        use(kind, folder, rows)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("hostile-pickle-ran"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_all_hostile_folders_are_refused_within_limits_and_exit_with_2(good, rows, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    requests = []
    for name in sorted(CASES):
        kind, folder = make_folder(name, good, tmp_path)
        verb, *options = COMMANDS[kind]
        out = tmp_path / "out" / name
        requests.append(
            [name, [verb, str(tmp_path / "rows.jsonl"), *options, str(folder), "--out", str(out), "--quiet"]]
        )
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, str(HERE / "run_cases.py")],
            input=json.dumps(requests),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=tmp_path,
        )
    assert done.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    results = json.loads(done.stdout)
    assert sorted(results) == sorted(CASES)
    problems = [problem for name, result in results.items() if (problem := describe_problem(name, result, tmp_path))]
    assert not problems, "\n".join(problems)
    assert not list(tmp_path.rglob("hostile-pickle-ran"))


def describe_problem(name, result, tmp_path):
    """Return what is wrong with how a command ended; None where nothing is."""
    code, seconds, megabytes, errors = result
    lines = [line for line in errors.splitlines() if line.strip()]
    is_sentence = len(lines) == 1 and lines[0].startswith("thresher: ") and "internal error" not in errors
    is_bounded = seconds <= MAX_SECONDS and megabytes <= MAX_MEGABYTES
    if code == 2 and is_sentence and is_bounded and not (tmp_path / "out" / name).exists():
        return None
    return f"{name}: {code}, {seconds:.0f} s, {megabytes:.0f} MB: {errors[-600:]}"
