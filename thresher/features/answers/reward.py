"""`reward`: how good a reward model finds the answer that a row gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from thresher.artifacts.json_text import encode_json, parse_json
from thresher.cache.batch import Batch
from thresher.errors import InputError
from thresher.features.answers.prompts import PromptRows, missing_series
from thresher.features.answers.sequence_classifier import SequenceClassifier
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues, describe_missing
from thresher.models.causal_lm.template_text import template_errors, write_text
from thresher.models.precision import inference
from thresher.models.stages import Stage
from thresher.models.token_batches import BATCH_TOKENS, token_batches

if TYPE_CHECKING:
    from thresher.dataset import Dataset

WINDOW_ROWS = 4096  # rows tokenized and sorted by length together
MAX_LENGTH = 2_048
VALUE, N_CUT = range(2)  # columns of the cached (n, 2) float64; NaN for a row that cannot be shown
NO_MODEL = (
    "reward: needs a reward model, found none; name a sequence classifier with one output with --reward-model "
    "(in Python reward_model=)"
)
REFUSED = "the chat template of the reward model refuses the conversation"


class RewardModel(SequenceClassifier):
    """A sequence classifier with one output, by folder or Hub id."""

    recipe: ClassVar[str] = "reward-1"
    role: ClassVar[str] = "reward model"

    def score_batches(self, keys: pl.Series, batch_tokens: int, max_length: int | None) -> Iterator[Batch]:
        """Yield (b, 2) float64: the output, and 1 where the row was cut.

        Rows of one length are read together, so that nothing is padded: many of these models take
        the last token that is no padding, and share its id with the end of a text.

        Args:
            keys: conversations as JSON, the last turn being the answer.
            batch_tokens: tokens in one pass.
            max_length: tokens that are read of a row, from its end; None for the model's limit.
        """
        self._check_outputs()
        limits = (self._base.max_positions, max_length or MAX_LENGTH)
        limit = min(limit for limit in limits if limit is not None)
        for start in range(0, len(keys), WINDOW_ROWS):
            tokenized = [self._tokenize(parse_json(key)) for key in keys[start : start + WINDOW_ROWS].to_list()]
            shown = np.array([ids is not None for ids in tokenized])
            rest = np.flatnonzero(~shown)
            if len(rest):
                yield Batch(start + rest, np.full((len(rest), 2), np.nan))
            ids = {i: tokenized[i]["input_ids"][-limit:] for i in np.flatnonzero(shown).tolist()}
            lengths = np.array([len(each) for each in ids.values()], dtype=np.int64)
            rows = np.array(list(ids), dtype=np.int64)
            for length in np.unique(lengths):
                same = rows[lengths == length]
                for batch in token_batches(np.full(len(same), length), batch_tokens):
                    chosen = same[batch]
                    values = self._forward([tokenized[i] for i in chosen], limit)
                    is_cut = [len(tokenized[i]["input_ids"]) > limit for i in chosen]
                    yield Batch(start + chosen, np.stack([values, np.array(is_cut, dtype=np.float64)], axis=1))

    def _tokenize(self, conversation: dict[str, Any]) -> Any:
        """Return what the tokenizer makes of a row; None where the template refuses it."""
        messages, tools = conversation["messages"], conversation["tools"]
        tokenizer = self._tokenizer
        if tokenizer.chat_template is None:
            # reward models without a template were trained on pairs of a question and an answer
            before = "\n".join(str(message["content"]) for message in messages[:-1])
            return tokenizer(before, str(messages[-1]["content"]), verbose=False)
        try:
            text = write_text(tokenizer, messages, tools, add_generation_prompt=False)
        except template_errors():
            return None
        return tokenizer(text, add_special_tokens=False, verbose=False)

    def _forward(self, rows: list[Any], limit: int) -> Any:
        import torch

        names = [name for name in rows[0] if name in ("input_ids", "token_type_ids", "attention_mask")]
        inputs = {name: torch.tensor([row[name][-limit:] for row in rows], device=self._model.device) for name in names}
        with inference(f"{self.role} '{self.name}': a batch of {tuple(inputs['input_ids'].shape)} tokens"):
            return self._model(**inputs).logits[:, 0].double().cpu().numpy()

    def _check_outputs(self) -> None:
        """Refuse a model with several outputs, and let one without a padding token read batches.

        Raises:
            InputError: it has several outputs.
        """
        config = self._model.config
        if config.num_labels != 1:
            raise InputError(
                f"{self.role} '{self.name}': must have one output, found {config.num_labels}; choose a reward model"
            )
        if config.pad_token_id is None:
            # nothing is padded; an id that no token has lets it find the last token of each row
            config.pad_token_id = -1


class Reward(FeatureProvider):
    """The output of a reward model for the row's last answer, given what came before: any number.

    The conversation is written by the chat template of the reward model; one without a template
    reads the pair of prompt and answer. Of a row that is too long, the end is read.
    """

    name: ClassVar[str] = "reward"
    passes: ClassVar[str] = "the reward model reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the reward model and its fingerprint.

        Raises:
            InputError: none is named.
        """
        model = _find_model(context)
        limit = str(context.models.max_length or MAX_LENGTH)
        return {"model": model.name, "max_length": limit, "fingerprint": model.fingerprint}

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64, NaN with its reason where the template refuses the row.

        Raises:
            InputError: the rows are plain text, no model is named, or it has several outputs.
        """
        rows = PromptRows.from_dataset(dataset, by=self.name)
        model, models = _find_model(context), context.models
        keys = [
            _append_answer(before, answer) for before, answer in zip(rows.conversations, rows.responses, strict=True)
        ]
        stage = Stage(
            name=self.name,
            texts=pl.Series("row", keys, dtype=pl.String),
            compute=lambda part: model.score_batches(part, models.batch_tokens or BATCH_TOKENS, models.max_length),
            feature=self.name,
            model=model.name,
            fingerprint=f"{model.fingerprint}-{models.max_length or MAX_LENGTH}",
        )
        values = context.run_stage(stage)
        values = np.zeros((0, 2)) if values is None else values
        is_missing = np.isnan(values[:, VALUE])
        notes = {
            "rows": len(dataset),
            "rows_missing": int(is_missing.sum()),
            "rows_cut": int(np.nansum(values[:, N_CUT])),
        }
        sentences = describe_missing(self.name, notes)
        if notes["rows_cut"]:
            sentences.append(f"{self.name}: {notes['rows_cut']:,} rows exceed its limit; only their ends were read")
        context.report_notes(self.name, len(dataset), sentences)
        missing = missing_series([REFUSED if lacks else None for lacks in is_missing.tolist()])
        return FeatureValues(values=np.ascontiguousarray(values[:, VALUE]), missing=missing, notes=notes)


def _find_model(context: FeatureContext) -> RewardModel:
    if context.models.reward_model is None:
        raise InputError(NO_MODEL)
    return RewardModel(context.models.reward_model, device=context.models.device)


def _append_answer(conversation: str, answer: str) -> str:
    """Return a conversation as JSON with its answer as the last turn."""
    content = parse_json(conversation)
    content["messages"].append({"role": "assistant", "content": answer})
    return encode_json(content).decode()
