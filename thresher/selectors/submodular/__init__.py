"""Submodular maximization: what the greedy selectors share.

`greedy.py` holds the coverage kernels, `optimizers.py` lazy and stochastic greedy,
`dense_kernel.py` and `kernels.py` build similarities, `pick_rules.py` decides what a pick gains,
`memory.py` plans memory, `distinct_cover.py` begins and ends coverage by distinct rows. Imported by
selectors only; imports `numeric` and `selectors.neighbors`. A new objective is a pick rule here.
"""
