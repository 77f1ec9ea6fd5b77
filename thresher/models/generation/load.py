"""Pick the generator that a model's name asks for: a model in this process, or a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.models.server_address import is_server

if TYPE_CHECKING:
    from thresher.features.context import FeatureContext
from thresher.models.generation.generator import Respondent


def respondent(context: FeatureContext) -> Respondent:
    """Return who answers for `context.model`."""
    if is_server(context.model):
        from thresher.models.generation.openai_server import Server

        return Server(str(context.model))
    from thresher.models.generation.local import LocalRespondent

    return LocalRespondent(context)
