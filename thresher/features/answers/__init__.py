"""Features from generated answers: confidence in an answer, and how often it is right.

`confidence.py`, `answer_accuracy.py` and `pass_rate.py` are providers, `prompts.py` builds what the
model is asked, `entailment.py` compares two answers. Imported through the registry of `features`
only; may import `models`, `cache`, `dataset`.
"""
