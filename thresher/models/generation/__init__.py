"""Generation: prompts in, answers out, from a local model or an OpenAI-compatible server.

`generator.py` is the protocol, `load.py` picks local or server, `local.py` and `decoding_loop.py`
run a model here, `openai_server.py` with `http_client.py`, `connection.py` and `responses.py` talk
to a server, `sampling.py` draws tokens. Imported by `features`, `evaluation`,
`curation.correction`. A new backend is one file here and one branch in `load.py`.
"""
