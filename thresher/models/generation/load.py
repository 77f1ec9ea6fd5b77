"""Pick the generator that a model's name asks for: a model in this process, or a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.models.server_address import is_server

if TYPE_CHECKING:
    from thresher.models.context import ModelContext
    from thresher.models.generation.generator import TextGenerator


def load_generator(context: ModelContext) -> TextGenerator:
    """Return who answers for `context.models.model`."""
    if is_server(context.models.model):
        from thresher.models.generation.openai_server import OpenAIGenerator

        return OpenAIGenerator(str(context.models.model))
    from thresher.models.generation.local import LocalGenerator

    return LocalGenerator(context)
