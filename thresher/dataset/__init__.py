"""Dataset: the user's rows in one canonical shape, and where each of them stands in the user's file."""

from thresher.dataset.conversation import Conversation
from thresher.dataset.dataset import Dataset
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.load import load
from thresher.dataset.schema import Schema

__all__ = ["Conversation", "Dataset", "Schema", "SourceFile", "load"]
