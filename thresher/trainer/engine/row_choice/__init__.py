"""What of the rows is learned: easy rows skipped, inputs masked, tokens left out.

`skipping.py` passes over easy rows, `step_rows.py` has the rows of one step, `reference.py` finds
the model that says which tokens are novel. Imports `engine/batches.py`, `engine/load_model.py` and
below; imported by the loop and by `trainer`.
"""
