"""Causal language models: loading, chat templates, and the log-likelihood of tokens.

`base_model.py` finds a model, tokenizer and adapter; `language_model.py` opens it for reading,
`likelihood.py` scores tokens, `tokenized_rows.py` turns rows into tokens with the part that
counts, `chat_template.py` renders conversations. Imported by `features`, `trainer`, `evaluation`;
a new way to read rows with a model starts in `language_model.py`.
"""
