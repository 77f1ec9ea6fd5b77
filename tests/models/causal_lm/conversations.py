"""Conversations of tests."""

ROLES = ("system", "user", "assistant", "user", "assistant")


def make_talk(*texts):
    """Return a system message and two questions with their answers."""
    return [{"role": role, "content": text} for role, text in zip(ROLES, texts, strict=True)]
