"""Sums as rows, and a writer that knows them with a known probability."""

import re

import xxhash


def make_sums(n):
    return [{"question": f"how much is {i} plus {i + 1}?", "answer": f"{i}+{i + 1}={2 * i + 1}\n#### {2 * i + 1}"}
            for i in range(n)]  # fmt: skip


def read_sum(body):
    """Return what a question of `make_sums` adds up to."""
    first, second = map(int, re.findall(r"how much is (\d+) plus (\d+)", body["messages"][-1]["content"])[-1])
    return first + second


def is_lucky(body, p):
    """Tell whether a draw of this seed is right, with probability p."""
    return xxhash.xxh3_64_intdigest(f"{body['seed']}".encode()) % 10_000 < p * 10_000
