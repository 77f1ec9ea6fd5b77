"""Hostile model folders, made from small good ones by one change each. None holds foreign code.

A case is a name, the kind of folder it is a copy of, and the change. `run_cases.py` runs a command
on each.
"""

import json
import os
import shutil
import struct
from functools import partial

CASES = {}  # name -> (kind, change)
HUGE = 10**9
EVIL_PATTERN = r"(([a-z._0-9])+)+\$"


def case(kind, name):
    """Register a change of a copy of a good folder; several kinds get it each."""

    def register(change):
        for each in kind.split():
            CASES[f"{each}-{name}"] = (each, change)
        return change

    return register


def cases(kind, **changes):
    for name, change in changes.items():
        case(kind, name.replace("_", "-"))(change)


def edit(folder, name="config.json", **changes):
    """Change fields of a JSON file; its folder may not have had it."""
    path = folder / name
    content = json.loads(path.read_bytes()) if path.is_file() else {}
    path.write_text(json.dumps(content | changes))


def config(**changes):
    return partial(edit, **changes)


def text(name, content):
    def change(folder):
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_text(content)

    return change


def deep(n=100_000):
    return '{"a":' * n + "1" + "}" * n


# --- indices of weights


def index(weight_map, *, rename="model-1.safetensors"):
    def change(folder):
        (folder / "model.safetensors").rename(folder / rename)
        content = weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(content)

    return change


@case("model", "index-pickle")
def index_to_a_pickle(folder):
    index({"lm_head.weight": "pytorch_model.bin", "model.norm.weight": "model-1.safetensors"})(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


@case("model", "index-parent")
def index_outside_the_folder(folder):
    shutil.copy(folder / "model.safetensors", folder.parent / f"{folder.name}-elsewhere.safetensors")
    index({"lm_head.weight": f"../{folder.name}-elsewhere.safetensors"})(folder)


cases(
    "model",
    index_absolute=index({"lm_head.weight": "/tmp/model.safetensors"}),
    index_folder=index({"lm_head.weight": "shards/model-1.safetensors"}),
    index_missing=index({"lm_head.weight": "model-2.safetensors"}),
    index_list=index("[]"),
    index_empty=index({}),
    index_numbers=index({"lm_head.weight": 5}),
    index_hidden=index({"lm_head.weight": ".model.safetensors"}),
    index_deep=index(deep()),
    index_address=index({"lm_head.weight": "http://localhost/model.safetensors"}),
)

# --- files that are none


def replace(name, make):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def link_elsewhere(name):
    def change(folder):
        target = folder.parent / f"{folder.name}-{name}"
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return change


def linked_folder(name):
    def change(folder):
        target = folder.parent / f"{folder.name}-{name}"
        target.mkdir()
        for path in (folder / name).glob("*"):
            shutil.copy(path, target)
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).symlink_to(target, target_is_directory=True)

    return change


WEIGHTS = {"model": "model.safetensors", "encoder": "model.safetensors", "adapter": "adapter_model.safetensors"}
for _kind, _name in WEIGHTS.items():
    cases(
        _kind,
        weights_link=link_elsewhere(_name),
        weights_device=replace(_name, lambda path: path.symlink_to("/dev/zero")),
        weights_pipe=replace(_name, os.mkfifo),
        weights_folder=replace(_name, os.mkdir),
        weights_dangling=replace(_name, lambda path: path.symlink_to("nowhere")),
        weights_circle=replace(_name, lambda path: path.symlink_to(path.name)),
    )
cases(
    "model",
    config_pipe=replace("config.json", os.mkfifo),
    config_link=link_elsewhere("config.json"),
    tokenizer_pipe=replace("tokenizer.json", os.mkfifo),
    templates_link=linked_folder("additional_chat_templates"),
    config_large=lambda folder: os.truncate(folder / "config.json", 17 << 20),
)
cases("encoder", pooling_link=linked_folder("1_Pooling"))
cases("adapter", config_link=link_elsewhere("adapter_config.json"))

# --- headers that lie


def header(change_header, *, tail=b""):
    def change(folder):
        path = next(folder / name for name in set(WEIGHTS.values()) if (folder / name).is_file())
        content = path.read_bytes()
        (n,) = struct.unpack("<Q", content[:8])
        about = json.loads(content[8 : 8 + n])
        names = sorted(name for name in about if name != "__metadata__")
        changed = change_header(about, about[names[0]], about[names[1]]) or about
        written = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + n :] + tail)

    return change


def raw(make):
    def change(folder):
        path = next(folder / name for name in set(WEIGHTS.values()) if (folder / name).is_file())
        path.write_bytes(make(path.read_bytes()))

    return change


LIES = {
    "length-endless": raw(lambda content: struct.pack("<Q", 1 << 63) + content[8:]),
    "length-beyond": raw(lambda content: struct.pack("<Q", len(content)) + content[8:]),
    "truncated": raw(lambda content: content[:-100]),
    "empty": raw(lambda _: b""),
    "longer": header(lambda *_: None, tail=b"\0" * 8),
    "no-json": header(lambda *_: b"not json"),
    "deep": header(lambda *_: deep().encode()),
    "beyond": header(lambda _, one, __: one.update(data_offsets=[0, 1 << 40])),
    "overlap": header(lambda _, one, other: one.update(data_offsets=other["data_offsets"])),
    "larger": header(lambda _, one, __: one.update(shape=[1 << 40, *one["shape"]])),
    "negative": header(lambda _, one, __: one.update(shape=[-size for size in one["shape"]])),
    "fraction": header(lambda _, one, __: one.update(shape=[0.5])),
    "type": header(lambda _, one, __: one.update(dtype="F999")),
    "list": header(lambda *_: b"[]"),
}
for _name, _change in LIES.items():
    case("model adapter", f"header-{_name}")(_change)
case("encoder", "header-truncated")(LIES["truncated"])


def tensors(change_tensors):
    def change(folder):
        from safetensors.torch import load_file, save_file

        path = next(folder / name for name in set(WEIGHTS.values()) if (folder / name).is_file())
        found = load_file(path)
        change_tensors(found)
        save_file(found, path, metadata={"format": "pt"})

    return change


def shorten(found, name):
    found[name] = found[name][:-1].contiguous()


cases(
    "model",
    weights_missing=tensors(lambda found: found.pop("lm_head.weight")),
    weights_more=tensors(
        lambda found: found.update({"model.layers.7.mlp.up_proj.weight": found["lm_head.weight"] + 1})
    ),
    weights_other_shape=tensors(lambda found: shorten(found, "model.layers.0.mlp.up_proj.weight")),
)
cases("encoder", weights_missing=tensors(lambda found: found.pop("encoder.layer.0.output.dense.weight")))
cases("adapter", weights_other_shape=tensors(lambda found: shorten(found, min(found))))
cases("adapter", weights_missing=tensors(lambda found: found.pop(min(found))))

# --- configurations of impossible models

nested = {}
for _ in range(40):
    nested = {"text_config": nested}
IMPOSSIBLE = {
    "wide": {"hidden_size": HUGE},
    "negative": {"hidden_size": -32},
    "layers": {"num_hidden_layers": HUGE},
    "words": {"num_hidden_layers": "many"},
    "fraction": {"num_hidden_layers": 1e30},
    "vocabulary": {"vocab_size": 10**12},
    "no-heads": {"num_attention_heads": 0},
    "heads": {"num_attention_heads": 7},
    "intermediate": {"intermediate_size": 10**12},
    "kind": {"model_type": "no-such-model"},
    "kind-list": {"model_type": ["llama"]},
    "positions": {"max_position_embeddings": 10**15},
    "labels": {"num_labels": HUGE},
    "kernel": {"attn_implementation": "someone/kernel"},
    "nested": {"text_config": nested},
    "values": {"more": [0] * 1_100_000},
    "code": {"model_type": "custom", "auto_map": {"AutoModel": "code.M", "AutoConfig": "code.C"}},
    "padding": {"pad_token_id": 10**12},
}
for _name, _fields in IMPOSSIBLE.items():
    case("model encoder", f"config-{_name}")(config(**_fields))
cases(
    "model",
    config_small_vocabulary=config(vocab_size=300),
    config_fewer_layers=config(num_hidden_layers=1),
    config_no_layers=config(num_hidden_layers=0),
    config_head=config(head_dim=10**8),
    config_groups=config(num_key_value_heads=3),
    config_rope=config(rope_scaling={"rope_type": "no-such"}, rope_parameters={"rope_type": "no-such"}),
    config_quantized=config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    config_weights_elsewhere=config(transformers_weights="../model.safetensors"),
    config_other=config(model_type="gpt2", n_positions=10**6, n_embd=4096, n_layer=100, n_head=64),
    config_experts=config(model_type="mixtral", num_local_experts=10**8),
    config_adapter=text("adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "."}'),
    config_deep=text("config.json", deep()),
    config_list=text("config.json", "[]"),
)

# --- chat templates


def template(body):
    return text("chat_template.jinja", "{% for message in messages %}{{ message.content }}{% endfor %}" + body)


TEMPLATES = {
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}",
    "slow": "{% for a in range(99999) %}{% for b in range(600) %}{% set x = a * b %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "doubling-list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "times": "{{ 'x' * 10 ** 12 }}",
    "center": "{{ 'x'.center(10 ** 12) }}",
    "format": "{{ '%0999999999999d' % 1 }}",
    "output": "{{ 'x' * 30000000 }}",
    "syntax": "{% for %}",
    "refuses": "{{ raise_exception('never') }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "zero": "{{ 1 / 0 }}",
    "value": "{{ 'a'.index('b') }}",
    "large": "{# " + "x" * (2 << 20) + " #}",
}
for _name, _body in TEMPLATES.items():
    case("model", f"template-{_name}")(template(_body))
case("train", "template-loop")(template(TEMPLATES["loop"]))
case("train", "config-layers")(config(num_hidden_layers=HUGE))
case("train", "header-beyond")(LIES["beyond"])

# --- tokenizers


def tokenizer(change_content):
    def change(folder):
        content = json.loads((folder / "tokenizer.json").read_bytes())
        change_content(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return change


def split(pattern):
    part = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer(lambda content: content.update(pre_tokenizer=part))


def replace_all(pattern, content, n):
    part = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    return tokenizer(lambda found: found.update(normalizer={"type": "Sequence", "normalizers": [part] * n}))


def padding(n):
    settings = {"strategy": {"Fixed": n}, "direction": "Right", "pad_to_multiple_of": None}
    settings |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|pad|>"}
    return tokenizer(lambda content: content.update(padding=settings))


def many_special(content):
    special = {"SpecialToken": {"id": "<|pad|>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*([special] * 200_000), {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|pad|>": {"id": "<|pad|>", "ids": [0], "tokens": ["<|pad|>"]}},
    }


def large_ids(content):
    content["model"]["vocab"] = {token: code * 10**6 for token, code in content["model"]["vocab"].items()}


TOKENIZERS = {
    "nested-repeat": split("(a+)+$"),
    "slow-pattern": split(r"\s*\s*\s*\s*\s*\s*\s*\s*x"),
    "doubling": replace_all("a", "aa", 60),
    "long-replacement": replace_all("a", "b" * 10**6, 2),
    "padding": padding(10**12),
    "padding-words": padding("many"),
    "ids": tokenizer(large_ids),
    "special": tokenizer(many_special),
    "added-large": tokenizer(lambda content: content["added_tokens"][0].update(content="x" * 10**6)),
    "added-id": tokenizer(lambda content: content["added_tokens"][0].update(id=-1)),
    "precompiled": tokenizer(
        lambda content: content.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="})
    ),
    "kind": tokenizer(lambda content: content["model"].update(type="NoSuch")),
    "unigram": tokenizer(lambda content: content.update(model={"type": "Unigram", "unk_id": 9, "vocab": []})),
    "deep": text("tokenizer.json", deep()),
    "no-json": text("tokenizer.json", "{"),
    "list": text("tokenizer.json", "[]"),
}
for _name, _change in TOKENIZERS.items():
    case("tokenizer", _name)(_change)
for _name in ("nested-repeat", "doubling", "padding", "deep"):
    case("model", f"tokenizer-{_name}")(TOKENIZERS[_name])


@case("model", "tokenizer-vocabulary")
def more_tokens_than_weights(folder):
    def change(content):
        vocabulary = content["model"]["vocab"]
        vocabulary.update({f"word{i}": len(vocabulary) + i for i in range(500)})

    tokenizer(change)(folder)


cases(
    "model",
    tokenizer_length=partial(edit, name="tokenizer_config.json", model_max_length="many"),
    tokenizer_template=partial(edit, name="tokenizer_config.json", chat_template=5),
    tokenizer_token=partial(edit, name="tokenizer_config.json", eos_token=["<|im_end|>"]),
    tokenizer_added=partial(edit, name="tokenizer_config.json", added_tokens_decoder={"9" * 20: {"content": "x"}}),
)
cases("encoder", tokenizer_deep=TOKENIZERS["deep"], tokenizer_nested_repeat=TOKENIZERS["nested-repeat"])
