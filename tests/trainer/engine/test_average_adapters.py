import copy

import numpy as np
import pytest
import torch

from thresher.errors import InputError
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.adapters.merging import merge_adapters
from thresher.trainer.engine.average_adapters import average_adapters
from thresher.trainer.engine.fit import build_model
from thresher.trainer.engine.lora import save_adapter
from thresher.trainer.settings import TrainSettings

# peft 0.21 reads a property that transformers 5.23 renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
VARIANTS = ({"lora_rank": 2, "lora_alpha": 8.0}, {"lora_rank": 5, "lora_alpha": 5.0, "rslora": True}, {"lora_rank": 3})


@pytest.fixture
def adapters(tiny_bert, tmp_path):
    """Return folders and models of three adapters with the head of their architecture."""
    return build_adapters(tiny_bert, tmp_path, pooling="head")


def build_adapters(tiny_bert, tmp_path, *, pooling, **options):
    """Return folders and models of three adapters: random weights, three ranks and scales."""
    rows = [{"text": "the apple", "label": "red"}, {"text": "the sky", "label": "blue"}]
    folders, models = [], []
    for number, variant in enumerate(VARIANTS):
        settings = TrainSettings(max_length=32, pooling=pooling, **variant, **options)
        context = resolve_run(rows, model=tiny_bert, settings=settings, seed=0)
        with torch.random.fork_rng():
            model = build_model(context, seed=number).eval()
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = torch.randn_like(parameter) * 0.3
        folders.append(tmp_path / f"adapter-{number}")
        save_adapter(model, folders[-1])
        models.append(model)
    return folders, models


def updates(model):
    """Return what the adapter adds to each layer, and the layers it trained whole."""
    merged = copy.deepcopy(model).merge_and_unload()
    base = copy.deepcopy(model).unload()
    ours, theirs = merged.state_dict(), base.state_dict()
    return {name: (ours[name] - theirs[name]).double().numpy() for name in ours if name in theirs}


def test_the_mean_adapter_adds_the_mean_of_the_updates(adapters, tiny_bert, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folders, models = adapters
    average_adapters(folders, tmp_path / "mean")
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    mean = PeftModel.from_pretrained(plain, tmp_path / "mean").eval()
    each_update = [updates(model) for model in models]
    mean_update = updates(mean)
    layers = [name for name in mean_update if name.endswith("query.weight")]
    assert layers
    for name in layers:
        oracle = np.mean([each[name] for each in each_update], axis=0)
        assert np.abs(oracle).max() > 0.01
        np.testing.assert_allclose(mean_update[name], oracle, atol=1e-5)
    head = [name for name, _ in mean.named_parameters() if name.endswith("classifier.modules_to_save.default.weight")]
    whole = [dict(model.named_parameters())[head[0]] for model in models]
    torch.testing.assert_close(dict(mean.named_parameters())[head[0]], torch.stack(whole).mean(0))


@pytest.mark.filterwarnings("ignore:The density 1.0:UserWarning")
@pytest.mark.parametrize("way", ["mean", "ties"])
def test_the_update_of_an_embedding_is_merged_and_not_its_matrices(tiny_bert, tmp_path, way):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    targets = ("query", "word_embeddings")
    folders, models = build_adapters(tiny_bert, tmp_path, pooling="head", lora_targets=targets)
    # of ties, all entries: what is left is the sign that weighs more, of two adapters
    merge_adapters(folders[:2], tmp_path / "merged", way=way, density=1.0)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    merged = updates(PeftModel.from_pretrained(plain, tmp_path / "merged").eval())
    both = [updates(model) for model in models[:2]]
    (name,) = [name for name in merged if name.endswith("word_embeddings.weight")]
    a, b = (each[name] for each in both)
    assert min(np.abs(a).max(), np.abs(b).max()) > 0.01
    if way == "mean":
        np.testing.assert_allclose(merged[name], (a + b) / 2, atol=1e-5)
        return
    sign = np.sign(a + b)
    kept = [np.where(np.sign(x) == sign, x, 0.0) for x in (a, b)]
    chosen = (kept[0] + kept[1]) / np.maximum(1, (kept[0] != 0).astype(int) + (kept[1] != 0))
    u, s, v = np.linalg.svd(chosen, full_matrices=False)  # the nearest update of the summed rank
    np.testing.assert_allclose(merged[name], (u[:, :7] * s[:7]) @ v[:7], rtol=1e-3, atol=1e-4)


def test_one_adapter_is_its_own_mean(adapters, tmp_path, tiny_bert):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folders, models = adapters
    average_adapters(folders[1:2], tmp_path / "mean")
    mean = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2), tmp_path / "mean"
    )
    mean_update, each_update = updates(mean.eval()), updates(models[1])
    for name in each_update:
        if name.endswith("query.weight"):
            np.testing.assert_allclose(mean_update[name], each_update[name], atol=1e-6)


def test_the_mean_of_pooled_classifiers_is_one_with_the_mean_head(tiny_bert, tmp_path, adapters):
    from safetensors.torch import load_file

    folders, models = build_adapters(tiny_bert, tmp_path / "pooled", pooling="mean")
    average_adapters(folders, tmp_path / "mean")
    head = load_file(tmp_path / "mean" / "head.safetensors")
    for name in ("weight", "bias"):
        expected = torch.stack([dict(model.head.named_parameters())[name] for model in models]).mean(0)
        torch.testing.assert_close(head[name], expected.detach())
    assert (tmp_path / "mean/head.json").read_bytes() == (folders[0] / "head.json").read_bytes()
    other = folders[1] / "head.json"
    other.write_text(other.read_text().replace('"mean"', '"cls"'))
    for pair in (folders[:2], [folders[0], adapters[0][0]]):
        with pytest.raises(InputError, match="average_adapters: all adapters must have"):
            average_adapters(pair, tmp_path / "other")


def test_adapters_of_other_layers_are_refused(adapters, tmp_path):
    folders, _ = adapters
    path = folders[2] / "adapter_config.json"
    path.write_text(path.read_text().replace("layer.1.attention.self.query", "layer.1.of.nothing"))
    with pytest.raises(InputError, match="same target_modules"):
        average_adapters(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
