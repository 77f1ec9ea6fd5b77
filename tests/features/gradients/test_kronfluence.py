"""Influence by LoRA's small factors against kronfluence, where it is installed."""

from pathlib import Path

import numpy as np
import pytest

import thresher as th
from thresher.models.causal_lm.embedded import causal_lm_folder


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_influence_by_small_factors_is_that_of_kronfluence(tmp_path, monkeypatch):
    pytest.importorskip("kronfluence", reason="needs: pip install --no-deps kronfluence einconv opt_einsum einops")
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    import gradient_oracle as oracle

    rows = [{"prompt": f"add {i} and {i % 3}", "completion": f"{i + i % 3}"} for i in range(10)]
    pool, target = th.load(rows[:7]), th.load(rows[7:])
    _, tokens, folder = oracle.run_ours(pool, target, "tiny", 64)
    plain = [oracle.load_plain(folder, str(causal_lm_folder())) for _ in range(2)]
    reference, _ = oracle.run_reference(plain[0], *tokens)
    scores = oracle.run_kronfluence(plain[1], *tokens, tmp_path / "kron", strategy="kfac", is_small=True)
    np.testing.assert_allclose(scores, reference, atol=1e-4 * np.abs(reference).max())
