"""Untrusted: folders of models that others wrote, checked before anything of them is loaded.

`folder.py` checks files, `weights.py` headers of safetensors, `config.py`, `tokenizer.py`,
`adapter.py` and `encoder.py` what each says, `fit.py` whether configuration and weights agree.
`worker.py` is a process with limits of time and memory, in which chat templates are rendered
(`templates.py`), patterns matched and tokenizers tried; `client.py` asks it. Imported by `models`
and above; imports `errors` only. A new check of a file goes into the module of its kind.
"""
