"""Turn a GGUF file of a Llama with a byte-level BPE into a folder that transformers reads.

transformers reads such files itself, but parses the header twice, keeps the weights packed where it
can, and leaves out how the tokenizer splits digits. One tensor is unpacked at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.errors import InputError

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader

SPECIAL = 3  # type of a token that stands for no text
# names of a layer's tensors in the file -> in transformers
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def convert_llama(path: Path, folder: Path) -> None:
    """Write weights in bfloat16, configuration, tokenizer and chat template of a GGUF file.

    Args:
        path: of a Llama whose tokenizer is a byte-level BPE that splits digits ("smollm").
        folder: is made.

    Raises:
        InputError: the file holds another kind of model or tokenizer.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    kind, split = _read(reader, "general.architecture"), _read(reader, "tokenizer.ggml.pre")
    if (kind, split) != ("llama", "smollm"):
        raise InputError(f"{path}: must hold a 'llama' with a 'smollm' tokenizer, found '{kind}' with '{split}'")
    folder.mkdir(parents=True, exist_ok=True)
    _build_config(reader).save_pretrained(folder)
    _build_tokenizer(reader).save_pretrained(folder)
    _save_weights(reader, folder / "model.safetensors")


def _read(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _build_config(reader: GGUFReader) -> Any:
    import torch
    from transformers import LlamaConfig

    def number(name: str) -> Any:
        return _read(reader, f"llama.{name}")

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype=torch.bfloat16,
        vocab_size=number("vocab_size"),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=number("attention.head_count"),
        num_key_value_heads=number("attention.head_count_kv"),
        max_position_embeddings=number("context_length"),
        # the file rounds it to float32
        rms_norm_eps=float(f"{number('attention.layer_norm_rms_epsilon'):.6g}"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        tie_word_embeddings="output.weight" not in {tensor.name for tensor in reader.tensors},
        bos_token_id=_read(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_read(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_read(reader, "tokenizer.ggml.padding_token_id"),
    )


def _build_tokenizer(reader: GGUFReader) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def token(name: str) -> str:
        return str(tokens[_read(reader, f"tokenizer.ggml.{name}_token_id")])

    tokens = _read(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _read(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: code for code, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _read(reader, "tokenizer.ggml.token_type")
    special = [
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind == SPECIAL
    ]
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=token("bos"),
        eos_token=token("eos"),
        unk_token=token("unknown"),
        pad_token=token("padding"),
        chat_template=_read(reader, "tokenizer.chat_template"),
        model_max_length=_read(reader, "llama.context_length"),
        clean_up_tokenization_spaces=False,
    )


def _save_weights(reader: GGUFReader, path: Path) -> None:
    from safetensors.torch import save_file

    heads = {
        "attn_q": _read(reader, "llama.attention.head_count"),
        "attn_k": _read(reader, "llama.attention.head_count_kv"),
    }
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        stem, _, end = tensor.name.rpartition(".")
        *_, part = stem.split(".")
        if part in _OUTSIDE:
            name = _OUTSIDE[part]
        elif part in _LAYER:
            name = f"model.layers.{stem.split('.')[1]}.{_LAYER[part]}"
        else:
            raise InputError(f"{tensor.name}: must be a tensor of a Llama")
        weights[f"{name}.{end}"] = _unpack(tensor, heads.get(part))
    save_file(weights, path, metadata={"format": "pt"})


def _unpack(tensor: Any, n_heads: int | None) -> torch.Tensor:
    """Return a tensor in bfloat16, the rows of queries and keys in the order of transformers.

    Rotary positions turn pairs of rows: neighbors in the file, the two halves of a head here.
    """
    import torch
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    if n_heads is not None:
        pairs = values.reshape(n_heads, len(values) // n_heads // 2, 2, *values.shape[1:])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return torch.from_numpy(np.array(values, dtype=np.float32)).to(torch.bfloat16)
