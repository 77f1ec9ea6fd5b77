"""Kinds of wrong labels to plant, at random and by rules that the text shows."""

from __future__ import annotations

import numpy as np


def _change(labels, chosen, target):
    changed = labels.copy()
    changed[chosen] = target if np.ndim(target) == 0 else target[chosen]
    return changed


class Planter:
    """Plants wrong labels.

    Args:
        labels: (n,) true classes, 0..k-1.
        texts: (n,) of the rows.
        embedding: (n, d) of the rows.
        likeliest: (n,) the likeliest other class of each row, by classifiers of the true labels.
        doubt: (n,) how near that class comes, largest where nearest.
        seed: of the draws.
    """

    def __init__(self, labels, texts, embedding, likeliest, doubt, seed):
        self.y, self.texts, self.x, self.likeliest, self.doubt = labels, texts, embedding, likeliest, doubt
        self.rng = np.random.default_rng(seed)
        self.n, self.k = len(labels), int(labels.max()) + 1
        self.by_size = np.argsort(-np.bincount(labels, minlength=self.k))
        self.rare = self.by_size[(self.k + 1) // 2 :]
        self.next = (labels + 1) % self.k

    def _draw(self, share):
        return self.rng.random(self.n) < share

    def _any_other(self):
        return (self.y + self.rng.integers(1, self.k, self.n)) % self.k

    def plant(self, kind):
        """Return the labels with errors of that kind, (n,)."""
        y, big = self.y, self.by_size[0]
        if kind.startswith("uniform"):
            return _change(y, self._draw(int(kind.split()[1]) / 100), self._any_other())
        if kind.startswith("next class"):
            return _change(y, self._draw(int(kind.split()[2]) / 100), self.next)
        return {
            "largest to second": lambda: _change(y, (y == big) & self._draw(0.3), int(self.by_size[1])),
            "two rarest to largest": lambda: _change(y, np.isin(y, self.by_size[-2:]) & self._draw(0.4), int(big)),
            "largest to rarest": lambda: _change(y, (y == big) & self._draw(0.1), int(self.by_size[-1])),
            "all into the largest": lambda: _change(y, (y != big) & self._draw(0.3), int(big)),
            "within rare classes": lambda: _change(y, np.isin(y, self.rare) & self._draw(0.4), self._any_other()),
            "into rare classes": lambda: _change(
                y, ~np.isin(y, self.rare) & self._draw(0.12), self.rng.choice(self.rare, self.n)
            ),
            "every second class": lambda: _change(
                y, np.isin(y, self.by_size[::2]) & self._draw(0.35), self._any_other()
            ),
            "likeliest other class": lambda: _change(y, self._draw(0.2), self.likeliest),
            "by rule: clusters": self._by_cluster,
            "by rule: half-space": lambda: self._by_number(self.x @ self.rng.normal(size=self.x.shape[1])),
            "by rule: length": lambda: self._by_number(np.array([len(text) for text in self.texts])),
            "by rule: a word": self._by_word,
            "by rule: most doubtful": lambda: _change(y, self.doubt > np.quantile(self.doubt, 0.85), self.likeliest),
        }[kind]()

    def _by_cluster(self):
        from sklearn.cluster import KMeans

        cluster = KMeans(20, n_init=1, random_state=0).fit_predict(self.x)
        return _change(self.y, np.isin(cluster, self.rng.choice(20, 4, replace=False)), self.next)

    def _by_number(self, number):
        """Change the rows of each class with the largest fifth of numbers."""
        limit = np.array([np.quantile(number[self.y == c], 0.8) if (self.y == c).any() else 0 for c in range(self.k)])
        return _change(self.y, number > limit[self.y], self.next)

    def _by_word(self):
        """Change the rows of some classes that have a word that some of them have."""
        from sklearn.feature_extraction.text import CountVectorizer

        words = CountVectorizer(binary=True, min_df=5).fit_transform(self.texts).toarray()
        chosen = np.zeros(self.n, bool)
        for c in self.by_size[: max(2, self.k // 3)]:
            share = words[self.y == c].mean(axis=0)
            candidates = np.flatnonzero((share > 0.12) & (share < 0.35))
            if len(candidates):
                chosen |= (self.y == c) & (words[:, self.rng.choice(candidates)] > 0)
        return _change(self.y, chosen, self.next)


AT_RANDOM = (
    "uniform 5",
    "uniform 10",
    "uniform 30",
    "uniform 50",
    "next class 20",
    "next class 35",
    "largest to second",
    "two rarest to largest",
    "largest to rarest",
    "all into the largest",
    "within rare classes",
    "into rare classes",
    "every second class",
    "likeliest other class",
)
BY_RULE = (
    "by rule: clusters",
    "by rule: half-space",
    "by rule: length",
    "by rule: a word",
    "by rule: most doubtful",
)
