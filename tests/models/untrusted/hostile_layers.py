"""More hostile folders: modules of sentence encoders and configurations of adapters."""

import json
import os
import zipfile
from functools import partial

from hostile import EVIL_PATTERN, HUGE, case, cases, deep, edit, text


def modules(change_modules):
    def change(folder):
        content = json.loads((folder / "modules.json").read_bytes())
        changed = change_modules(content)
        (folder / "modules.json").write_text(json.dumps(content if changed is None else changed))

    return change


def dense(**fields):
    def change(folder):
        (folder / "2_Dense").mkdir()
        settings = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.Tanh"}
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings | fields))
        more = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        modules(lambda content: content.append(more))(folder)

    return change


def as_pickle(write):
    def change(folder):
        (folder / "model.safetensors").unlink()
        write(folder / "pytorch_model.bin")

    return change


def write_compressed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**8)


class _Runs:
    """What a pickle would run: a folder that must not be there afterwards."""

    def __reduce__(self):
        return os.mkdir, ("hostile-pickle-ran",)


def write_pickle(path):
    import torch

    torch.save({"a": _Runs()}, path)


cases(
    "encoder",
    module_of_python=modules(lambda content: content[0].update(type="os.path")),
    module_of_code=modules(lambda content: content[1].update(type="code.InteractiveConsole")),
    module_unknown=modules(lambda content: content[1].update(type="sentence_transformers.models.NoSuch")),
    module_above=modules(lambda content: content[1].update(path="../..")),
    module_absolute=modules(lambda content: content[1].update(path="/etc")),
    module_without_kind=modules(lambda content: content[1].pop("type")),
    modules_none=modules(lambda content: []),
    modules_object=modules(lambda content: {"a": 1}),
    modules_many=modules(lambda content: content * 10_000),
    modules_deep=text("modules.json", deep()),
    dense_code=dense(activation_function="os.system"),
    dense_wide=dense(in_features=10**12),
    dense_without_weights=dense(),
    length_negative=partial(edit, name="sentence_bert_config.json", max_seq_length=-5),
    length_words=partial(edit, name="sentence_bert_config.json", max_seq_length="many"),
    length_endless=partial(edit, name="tokenizer_config.json", model_max_length="many"),
    pickle_compressed=as_pickle(write_compressed),
    pickle_that_runs=as_pickle(write_pickle),
    pickle_old=as_pickle(lambda path: path.write_bytes(b"\x80\x02.")),
    adapter=text("adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}'),
    pooling_words=partial(edit, name="1_Pooling/config.json", word_embedding_dimension="many"),
    pooling_unknown=text("1_Pooling/config.json", '{"word_embedding_dimension": 32, "pooling_mode": "no-such"}'),
)


def adapter(**fields):
    return partial(edit, name="adapter_config.json", **fields)


ADAPTERS = {
    "pattern": {"target_modules": EVIL_PATTERN},
    "pattern-excluded": {"exclude_modules": EVIL_PATTERN},
    "pattern-saved": {"modules_to_save": [EVIL_PATTERN]},
    "pattern-rank": {"rank_pattern": {EVIL_PATTERN: 2}},
    "pattern-alpha": {"alpha_pattern": {EVIL_PATTERN: 2}},
    "pattern-layers": {"layers_to_transform": [0], "layers_pattern": EVIL_PATTERN},
    "pattern-broken": {"target_modules": "(((("},
    "rank": {"r": HUGE},
    "rank-negative": {"r": -4},
    "rank-words": {"r": "many"},
    "rank-of-layer": {"rank_pattern": {"q_proj": HUGE}},
    "prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": HUGE},
    "unknown": {"peft_type": "NO_SUCH"},
    "none": {"peft_type": None},
    "mixture": {"peft_type": "XLORA", "adapters": {"a": "/etc"}},
    "base-list": {"base_model_name_or_path": ["a"]},
    "base-missing": {"base_model_name_or_path": "/no/such/folder"},
    "base-nul": {"base_model_name_or_path": "a\0b"},
    "base-long": {"base_model_name_or_path": "a" * 5000},
    "base-address": {"base_model_name_or_path": "http://localhost:9"},
    "revision": {"revision": 5},
    "megatron": {"megatron_config": {"a": 1}, "megatron_core": "os"},
    "mapping": {"auto_mapping": {"base_model_class": "A", "parent_library": "os"}},
    "iterations": {"init_lora_weights": "pissa_niter_1000000000"},
    "replication": {"layer_replication": [[0, HUGE]]},
    "targets-missing": {"target_modules": ["no_such_layer"]},
    "targets-number": {"target_modules": 5},
    "tokens": {"trainable_token_indices": [10**12]},
    "dropout": {"lora_dropout": 7.0},
}
for _name, _fields in ADAPTERS.items():
    case("adapter", _name)(adapter(**_fields))


@case("adapter", "of-itself")
def adapter_of_itself(folder):
    edit(folder, "adapter_config.json", base_model_name_or_path=str(folder))


@case("adapter", "pickle")
def adapter_in_a_pickle(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


cases("adapter", deep=text("adapter_config.json", deep()), list=text("adapter_config.json", "[]"))
