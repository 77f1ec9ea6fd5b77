"""Gradients of rows against one backward pass per row, AdamW's own step, and a dense projection."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError, ManifestError
from thresher.features import FeatureCache, compute, fingerprints, make_context
from thresher.features.gradients import per_example as module
from thresher.features.gradients.per_example import AdapterState, adam_direction, make_sketch
from thresher.features.reference_adapters import TrainedFolder
from thresher.features.settings import GradientSettings
from thresher.models.causal_lm.tokenized_rows import PROBLEMS
from thresher.selection.pool_adapters import plan_adapters, train_adapter
from thresher.selectors.gradient import Gradient

DIM = 48
ROWS = [
    {"prompt": f"add {i} and 1:" + " please" * (i % 3), "completion": f"{i + 1} fox " * (1 + i % 4)} for i in range(12)
]


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    """Return the checkpoints of a warm-up of two epochs on half of the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRESHER_CACHE", str(tmp_path_factory.mktemp("warm-up")))
        context = make_context(model=str(tiny_llama), device="cpu", cache=None)
        selector = Gradient(share=0.5, epochs=2, dim=DIM)
        (planned,), context = plan_adapters(selector, th.load(ROWS), context, seed=0)
        train_adapter(planned)
    assert context.checkpoints == planned.folder
    return planned.folder


@pytest.fixture
def context(tiny_llama, folder):
    settings = GradientSettings(dim=DIM, epochs=2)
    return make_context(model=str(tiny_llama), device="cpu", cache=None, checkpoints=folder, gradient=settings)


class Plain:
    """A peft model in one of its kept states, asked for one row at a time."""

    def __init__(self, base, folder, path):
        import torch
        from peft import PeftModel
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model = PeftModel.from_pretrained(model, folder.adapters[0], is_trainable=True).eval()
        self.state = load_file(path)
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.state[f"parameter/{name}"])

    def loss(self, row):
        """Return the mean loss of the response's tokens."""
        import torch

        conversation = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        text = self.tokenizer.apply_chat_template(conversation, tokenize=False)
        head = self.tokenizer.apply_chat_template(conversation[:1], tokenize=False, add_generation_prompt=True)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        end = text.rindex("<|im_end|>") + len("<|im_end|>")
        ids = torch.tensor([encoded["input_ids"]])
        asked = [i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if stop > len(head) and start < end]
        logits = self.model(input_ids=ids).logits[0].log_softmax(-1)
        return -torch.stack([logits[i - 1, ids[0, i]] for i in asked]).mean()

    def gradient(self, row):
        """Return the gradient of the mean loss of the response's tokens, by parameter."""
        import torch

        found = torch.autograd.grad(self.loss(row), list(self.parameters.values()))
        return dict(zip(self.parameters, found, strict=True))

    def adam(self, gradients):
        """Return how each parameter moves in one step of torch's AdamW of rate 1, sign turned."""
        import torch

        moved = {}
        for name, gradient in gradients.items():
            weight = torch.nn.Parameter(torch.zeros_like(gradient, dtype=torch.float64))
            optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0)
            optimizer.state[weight] = {
                key: self.state[f"{key}/{name}"].clone().double()
                if key != "step"
                else self.state[f"step/{name}"].clone()
                for key in ("exp_avg", "exp_avg_sq", "step")
            }
            weight.grad = gradient.double()
            optimizer.step()
            moved[name] = -weight.detach()
        return moved


def dense(gradients, number):
    """Return the sketch by a dense matrix of signs, of length 1."""
    total = np.zeros(DIM)
    for name, gradient in gradients.items():
        module_name = name.removeprefix("base_model.model.").removesuffix(".weight")
        place, sign = make_sketch(module_name, gradient.numel(), dim=DIM, number=number)
        matrix = np.zeros((DIM, gradient.numel()))
        matrix[place.numpy(), np.arange(gradient.numel())] = sign.numpy()
        total += matrix @ gradient.double().flatten().numpy()
    return total / np.linalg.norm(total)


def flatten(gradients):
    """Return all parameters as one vector of length 1, in their order."""
    joined = np.concatenate([gradients[name].double().flatten().numpy() for name in sorted(gradients)])
    return joined / np.linalg.norm(joined)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("precondition", ["adam", "factors"])
def test_influence_is_the_mean_cosine_with_the_rows_of_each_task(tiny_llama, folder, context, precondition):
    rows, examples = ROWS[:6], [{**row, "task": i % 2} for i, row in enumerate(ROWS[6:11])]
    settings = GradientSettings(precondition=precondition, by="task")
    asked = replace(context, gradient=settings, examples=th.load(examples))
    rates = np.array([AdapterState.read(path).rate for path in folder.epochs()])
    wanted = np.zeros((6, 2))
    for path, share in zip(folder.epochs(), rates / rates.sum(), strict=True):
        plain = Plain(tiny_llama, folder, path)
        factors = sum_factors(plain, rows) if precondition == "factors" else {}
        target = np.stack([flatten(plain.gradient(row)) for row in examples])
        for i, row in enumerate(rows):
            gradients = plain.gradient(row)
            step = plain.adam(gradients) if precondition == "adam" else divide_by_factors(gradients, factors)
            cosines = target @ flatten(step)
            wanted[i] += share * np.array([cosines[::2].mean(), cosines[1::2].mean()])
    found = compute(th.load(rows), {"influence"}, asked)["influence"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # neither batches nor the order of pool or target matter
    other = replace(asked.with_models(batch_tokens=20), examples=th.load(examples[::-1]))
    again = compute(th.load(rows[::-1]), {"influence"}, other)["influence"]
    np.testing.assert_allclose(again[::-1], found, atol=1e-6)


def test_influence_needs_a_target_with_a_scored_token(context):
    with pytest.raises(InputError, match="influence: needs rows of a target, found none"):
        compute(th.load(ROWS[:2]), {"influence"}, context)
    examples = th.load([{"prompt": "add " * 300, "completion": "1"}])
    with pytest.raises(InputError, match="target: must hold rows with a token to score, found none among 1"):
        compute(th.load(ROWS[:2]), {"influence"}, replace(context.with_models(max_length=120), examples=examples))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("feature", ["gradient", "target_gradient"])
def test_a_batch_gives_the_gradients_of_its_rows_one_by_one(tiny_llama, folder, context, feature):
    found = compute(th.load(ROWS), {feature}, context)[feature].astype(np.float64)
    assert found.shape == (12, 2 * DIM)
    rates = np.array([AdapterState.read(path).rate for path in folder.epochs()])
    for number, path in enumerate(folder.epochs()):
        plain = Plain(tiny_llama, folder, path)
        for i, row in enumerate(ROWS):
            gradients = plain.gradient(row)
            wanted = dense(plain.adam(gradients) if feature == "gradient" else gradients, number)
            scale = np.sqrt(rates[number] / rates.sum())
            np.testing.assert_allclose(found[i, number * DIM : (number + 1) * DIM], wanted * scale, atol=1e-3)


def watch_matrices(model, seen):
    """Append name, inputs and outputs of each call of a matrix of the adapter; return the hooks."""

    def watch(name):
        def keep(part, inputs, output):
            output.retain_grad()
            seen.append((name, inputs[0].detach(), output))

        return keep

    parts = [(name, part) for name, part in model.named_modules() if name.endswith(module.MATRICES)]
    return [part.register_forward_hook(watch(name)) for name, part in parts]


def sum_factors(plain, rows):
    """Return the small second moments of each matrix, token by token, row by row."""
    import torch

    total = {}
    for row in rows:
        seen = []
        hooks = watch_matrices(plain.model, seen)
        plain.loss(row).backward()
        for hook in hooks:
            hook.remove()
        for name, inputs, output in seen:
            for x, back in zip(inputs[0], output.grad[0], strict=True):
                side = back if name.endswith(".lora_A.default") else x
                if back.abs().sum() > 0:
                    total[name] = total.get(name, 0) + torch.outer(side, side).double()
        plain.model.zero_grad()
    return total


def divide_by_factors(gradients, factors):
    """Return gradients divided by damped factors."""
    import torch

    divided = {}
    for name, gradient in gradients.items():
        factor = factors[name.removesuffix(".weight")]
        inverse = torch.linalg.inv(factor + 0.1 * factor.diagonal().mean() * torch.eye(len(factor)))
        is_first = ".lora_A." in name
        divided[name] = inverse @ gradient.double() if is_first else gradient.double() @ inverse
    return divided


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_gradients_are_divided_by_the_small_factors_of_lora(tiny_llama, folder, context):
    settings = GradientSettings(dim=DIM, epochs=2, precondition="factors")
    rows = th.load(ROWS)
    found = compute(rows, {"gradient", "target_gradient"}, replace(context, gradient=settings))
    usual = compute(rows, {"gradient", "target_gradient"}, context)
    np.testing.assert_array_equal(found["target_gradient"], usual["target_gradient"])
    rates = np.array([AdapterState.read(path).rate for path in folder.epochs()])
    for number, path in enumerate(folder.epochs()):
        plain = Plain(tiny_llama, folder, path)
        factors = sum_factors(plain, ROWS)
        for i, row in enumerate(ROWS):
            divided = divide_by_factors(plain.gradient(row), factors)
            wanted = dense(divided, number) * np.sqrt(rates[number] / rates.sum())
            ours = found["gradient"][i, number * DIM : (number + 1) * DIM]
            np.testing.assert_allclose(ours, wanted, atol=2e-3)


def test_other_settings_of_the_gradient_are_kept_apart(context):
    settings = GradientSettings(dim=DIM, epochs=2, precondition="factors")
    described = [fingerprints({"gradient"}, each) for each in (context, replace(context, gradient=settings))]
    assert described[0] != described[1]


def test_moments_are_corrected_as_the_optimizer_does():
    import torch

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(5))
    optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0)
    for _ in range(3):
        weight.grad = torch.randn(5)
        optimizer.step()
    state = {key: value.clone() for key, value in optimizer.state[weight].items()}
    before, gradient = weight.detach().clone(), torch.randn(5)
    weight.grad = gradient
    optimizer.step()
    found = adam_direction(gradient, state["exp_avg"], state["exp_avg_sq"], int(state["step"]))
    np.testing.assert_allclose(found, (before - weight.detach()).numpy(), atol=1e-6)


def test_sketches_keep_inner_products_on_average_and_their_error_falls_with_their_size():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3000))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    y = (x + y) / np.linalg.norm(x + y)
    errors = {}
    for dim in (64, 1024):
        found = []
        for number in range(60):
            place, sign = (each.numpy() for each in make_sketch("m", 3000, dim=dim, number=number))
            a, b = (np.bincount(place, weights=sign * each, minlength=dim) for each in (x, y))
            found.append(a @ b)
        assert np.mean(found) == pytest.approx(x @ y, abs=4 * np.std(found) / np.sqrt(60))
        errors[dim] = np.std(found)
    assert errors[64] == pytest.approx(np.sqrt((1 + (x @ y) ** 2) / 64), rel=0.35)
    assert errors[1024] < errors[64] / 2


@pytest.mark.parametrize("batch_tokens", [20, 4000])
def test_batches_and_order_change_no_value(context, batch_tokens):
    order = np.random.default_rng(0).permutation(12)
    usual = compute(th.load(ROWS), {"gradient"}, context)["gradient"]
    rows = th.load([ROWS[i] for i in order])
    found = compute(rows, {"gradient"}, context.with_models(batch_tokens=batch_tokens))["gradient"]
    np.testing.assert_allclose(found.astype(np.float64), usual[order].astype(np.float64), atol=1e-3)


def test_a_row_without_a_scored_token_has_no_value_and_its_reason(context):
    rows = th.load([*ROWS[:3], {"prompt": "add " * 300, "completion": "1"}])
    found = compute(rows, {"gradient"}, context.with_models(max_length=120))
    assert np.isnan(found["gradient"][3]).all()
    assert found.missing["gradient"].to_list() == [None, None, None, PROBLEMS[1]]
    assert found.notes["gradient"]["rows_missing"] == 1


def test_a_killed_run_goes_on_where_it_stopped(context, tmp_path, monkeypatch):
    monkeypatch.setattr("thresher.cache.by_text.CHUNK_ROWS", 1)
    context = replace(context.with_models(batch_tokens=20), cache=FeatureCache(tmp_path))
    usual = module.RowGradients._directions
    asked = []

    def killed(self, rows, ids, precondition):
        asked.append(len(rows))
        if len(asked) == 18:
            raise KeyboardInterrupt
        return usual(self, rows, ids, precondition)

    monkeypatch.setattr(module.RowGradients, "_directions", killed)
    with pytest.raises(KeyboardInterrupt):
        compute(th.load(ROWS), {"gradient"}, context)
    n_done = sum(asked[:-1])
    found = compute(th.load(ROWS), {"gradient"}, context)["gradient"]
    assert sum(asked[18:]) == 2 * 12 - n_done
    assert n_done > 12  # the first checkpoint was done, and a part of the second
    fresh = compute(th.load(ROWS), {"gradient"}, replace(context, cache=None))["gradient"]
    np.testing.assert_allclose(found.astype(np.float64), fresh.astype(np.float64), atol=1e-3)


def test_gradients_are_in_full_precision_whatever_the_process_has_set(context, monkeypatch):
    import torch

    seen, real = [], module.cross_entropy
    setting = torch.backends.cuda.matmul
    monkeypatch.setattr(module, "cross_entropy", lambda *a, **k: seen.append(setting.fp32_precision) or real(*a, **k))
    setting.fp32_precision = "tf32"
    try:
        compute(th.load(ROWS[:2]), {"gradient"}, context)
    finally:
        setting.fp32_precision = "none"
    assert set(seen) == {"ieee"}


def test_means_over_a_target_are_in_full_precision_whatever_the_process_has_set(context, monkeypatch):
    import torch

    seen, real, setting = [], torch.Tensor.__matmul__, torch.backends.cuda.matmul
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: seen.append(setting.fp32_precision) or real(a, b))
    setting.fp32_precision = "tf32"
    try:
        compute(th.load(ROWS[:2]), {"influence"}, replace(context, examples=th.load(ROWS[2:4])))
    finally:
        setting.fp32_precision = "none"
    assert set(seen) == {"ieee"}


def test_a_kept_state_in_the_place_of_another_is_refused(folder, tmp_path):
    """Gradients are cached under the identity of the folder, which knows no file added later."""
    shutil.copytree(folder.path, tmp_path / "copy")
    assert TrainedFolder.find(tmp_path / "copy").identity == folder.identity
    one, other = TrainedFolder.find(tmp_path / "copy").epochs()
    one.write_bytes(other.read_bytes())
    with pytest.raises(ManifestError, match="must hold the adapters that were trained for it, found others"):
        TrainedFolder.find(tmp_path / "copy")


def test_a_large_result_is_held_in_a_file(context, monkeypatch, tmp_path):
    monkeypatch.setattr("thresher.cache.memory_map.MAPPED_BYTES", 100)
    found = compute(th.load(ROWS), {"gradient"}, replace(context, cache=FeatureCache(tmp_path / "new")))["gradient"]
    assert isinstance(found.base, np.memmap)
    np.testing.assert_array_equal(found, compute(th.load(ROWS), {"gradient"}, context)["gradient"])


def test_what_stands_behind_the_values_is_told_before_anything_is_trained(tiny_llama, tmp_path):
    planned = TrainedFolder(path=tmp_path / "not-there", identity="one", n_folds=1)
    one = make_context(model=str(tiny_llama), checkpoints=planned)
    other = replace(one, gradient=GradientSettings(dim=7))
    names = {"gradient", "target_gradient"}
    found = [fingerprints(names, each)[name]["fingerprint"] for each in (one, other) for name in sorted(names)]
    assert len(set(found)) == 4


def test_a_folder_without_kept_epochs_is_refused(tiny_llama, folder, tmp_path):
    with pytest.raises(
        InputError, match=r"gradient: needs adapters that were kept after each epoch .* found none; give their folder"
    ):
        compute(th.load(ROWS), {"gradient"}, make_context(model=str(tiny_llama)))
    named = make_context(model=str(tiny_llama), checkpoints=str(tmp_path))
    with pytest.raises(InputError, match="found none in '"):
        compute(th.load(ROWS), {"gradient"}, named)
    content = json.loads((folder.path / "trained.json").read_bytes())
    (tmp_path / "trained.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="gradient: needs adapters that were kept after each epoch"):
        compute(th.load(ROWS), {"gradient"}, named)


def test_checkpoints_of_another_base_are_refused(plain_llama, context):
    with pytest.raises(InputError, match=r"are of '.*', and the model is '.*'; give that base as --model"):
        compute(th.load(ROWS), {"gradient"}, context.with_models(model=str(plain_llama)))
