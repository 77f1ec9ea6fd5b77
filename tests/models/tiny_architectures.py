"""Settings of small models that tests of several packages build."""

LLAMA4 = {
    "head_dim": 8,
    "intermediate_size_mlp": 64,
    "num_local_experts": 2,
    "attention_chunk_size": 16,
    "layer_types": ["chunked_attention", "full_attention"],
    "no_rope_layers": [1, 0],
}
