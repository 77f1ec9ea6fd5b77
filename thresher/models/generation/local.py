"""Answers of a causal language model on this machine, and its choice among given answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.json_text import parse_json
from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.models.causal_lm.chat_template import TEMPLATE_REFUSES, render_conversation, start_tokens, turn_end_ids
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import padded
from thresher.models.causal_lm.shared_prefix import has_plain_cache
from thresher.models.causal_lm.turn_markers import HOLDS_MARKERS, clean_conversation
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.decoding_loop import generate_plainly, ignores_padding, read_stop_ids
from thresher.models.generation.generator import Generation, OptionProbabilities
from thresher.models.generation.sampling import InverseTransform, SampleRequests, sample_uniforms
from thresher.models.precision import inference
from thresher.models.stages import Stage
from thresher.models.token_batches import BATCH_TOKENS, token_batches
from thresher.numeric.arrays import Int64

if TYPE_CHECKING:
    import torch

    from thresher.models.context import ModelContext

RECIPE = "generation-5"
WINDOW_CONVERSATIONS = 2048  # conversations tokenized and sorted by length together
MERGED = 2  # tokens at the end of a prompt that may become others when an answer follows
OPTIONS = "\0"  # between a question and its options in a key

# What stands in place of token ids: behind the end of an answer, and where there is none.
NOTHING, TOO_LONG, REFUSED, ALIKE, MARKED = -1, -2, -3, -4, -5
_PROBLEMS = {
    TOO_LONG: "the prompt leaves no room for an answer within max_length",
    REFUSED: TEMPLATE_REFUSES,
    MARKED: HOLDS_MARKERS,
    ALIKE: "the model's tokenizer does not tell the options apart",
}
Ids = NDArray[np.int32]


class LocalGenerator:
    """A causal language model of this machine that writes.

    Conversations are rendered by the model's chat template, read in batches of like length, padded
    on the left. An answer depends on its conversation, the settings and the seed alone, not on its
    batch or order: each sampled answer has random numbers of its own. Arithmetic sets the limit:
    padding and batch size change a probability by rounding (about 1e-6 in float32, 1e-2 in
    bfloat16), so two nearly equal tokens can change places, and what follows with them.

    Attributes:
        lm: the model.
    """

    def __init__(self, context: ModelContext) -> None:
        self.lm = context.load_language_model()
        self._max_length = self.lm.limit_length(context.models.max_length)
        self._special_tokens = context.models.special_tokens

    @property
    def name(self) -> str:
        """The model's name."""
        return self.lm.name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, precision and longest input."""
        return combine_fingerprints(
            self.lm.fingerprint, "-".join(map(str, filter(None, (RECIPE, self._max_length, self._special_tokens))))
        )

    def generate(
        self, conversations: Sequence[str], decoding: Decoding, *, stage: str, context: ModelContext
    ) -> list[list[Generation]]:
        """Return the answers of each conversation; each finished one comes from the cache.

        Cost: one pass over each prompt, whatever the number of samples, where the model keeps its
        keys and values in the plain way; then one step of a batch per token. A batch holds prompts
        and answers of `context.models.batch_tokens`.
        """
        requests = SampleRequests.create(conversations, decoding.n_samples)
        # not `lm.limit_batch_tokens`: that bounds the activations of one pass, and here every
        # layer's keys and values of prompts and answers are held at once
        batch_tokens = context.models.batch_tokens or BATCH_TOKENS

        def batches(keys: pl.Series) -> Iterator[Batch]:
            return self._answer_batches(requests.group_by_conversation(keys), decoding, batch_tokens)

        answers = context.run_stage(
            Stage(
                name=stage,
                texts=pl.Series("conversation", requests.keys, dtype=pl.String),
                compute=batches,
                feature="answers",
                model=self.name,
                fingerprint=combine_fingerprints(self.fingerprint, decoding.one_answer),
                groups=requests.conversation,
                sizes=requests.size,
            )
        )
        if answers is None:
            return []
        stops = np.array(sorted(self._stops))
        # What ends an answer is no part of it, and some tokenizers do not count it among their
        # special tokens.
        words = [ids[(ids >= 0) & ~np.isin(ids, stops)] for ids in answers]
        texts = self.lm.tokenizer.batch_decode(words, skip_special_tokens=True)
        flat = [self._read_answer(ids, text, stops) for ids, text in zip(answers, texts, strict=True)]
        n = decoding.n_samples
        return [flat[start : start + n] for start in range(0, len(flat), n)]

    def _read_answer(self, ids: Ids, text: str, stops: Int64) -> Generation:
        if ids[0] in _PROBLEMS:
            return Generation(None, problem=_PROBLEMS[int(ids[0])])
        return Generation(text.strip(), is_cut=bool(ids[-1] != NOTHING and ids[-1] not in stops))

    def score_options(
        self, conversations: Sequence[str], options: Sequence[str], *, stage: str, context: ModelContext
    ) -> OptionProbabilities:
        """Return the probability of each option's first token. Cost: one forward each."""

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return self._option_batches(texts, len(options), context.models.batch_tokens or BATCH_TOKENS)

        keys = [OPTIONS.join((conversation, *options)) for conversation in conversations]
        values = context.run_stage(
            Stage(
                name=stage,
                texts=pl.Series("conversation", keys, dtype=pl.String),
                compute=batches,
                feature="choices",
                model=self.name,
                fingerprint=combine_fingerprints(self.fingerprint, ""),
            )
        )
        if values is None:
            return OptionProbabilities(np.zeros((0, len(options))), [])
        log_p, codes = values[:, :-1].astype(np.float64), values[:, -1].astype(np.int64)
        fine = codes == 0
        probabilities = np.full(log_p.shape, np.nan)
        probabilities[fine] = np.exp(log_p[fine] - np.logaddexp.reduce(log_p[fine], axis=1, keepdims=True))
        return OptionProbabilities(probabilities, [_PROBLEMS.get(int(code)) for code in codes])

    def notes(self) -> list[str]:
        """Return what the user should know of how the model was run."""
        notes = list(self.lm.notes())
        if not self.__dict__.get("_is_padded", True):
            notes.append(
                f"model '{self.name}': padding would change its answers, so only prompts of equal length are "
                f"batched, which is slower"
            )
        return notes

    @cached_property
    def _is_padded(self) -> bool:
        """Whether prompts may stand in one batch."""
        return ignores_padding(self.lm.model, self.lm.device)

    @cached_property
    def _stops(self) -> frozenset[int]:
        """Tokens that end an answer: as the model, its tokenizer or its chat template says."""
        own = None
        for path in self.lm.settings_files:  # read here: cached answers need no weights
            if own is None and path.is_file():
                own = json.loads(path.read_bytes()).get("eos_token_id")
        ends = read_stop_ids(own) | {self.lm.tokenizer.eos_token_id}
        return frozenset((ends | turn_end_ids(self.lm.tokenizer)) - {None})

    def _tokenize_prompts(self, conversations: Sequence[str]) -> tuple[list[list[int]], Int64]:
        """Return each conversation's token ids up to its answer, and a problem or 0."""
        tokenizer = self.lm.tokenizer
        contents = [parse_json(conversation) for conversation in conversations]
        cleaned = [
            clean_conversation(tokenizer, each["messages"], each["tools"], self._special_tokens) for each in contents
        ]
        texts = [
            None if each.problem else render_conversation(tokenizer, each.messages, each.tools) for each in cleaned
        ]
        problems = np.array([REFUSED if text is None else 0 for text in texts], dtype=np.int64)
        problems[[each.problem is not None for each in cleaned]] = MARKED
        ids: list[list[int]] = tokenizer([text or "" for text in texts], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return [[*start_tokens(tokenizer, row, is_asked=False), *row] for row in ids], problems

    def _answer_batches(
        self, requests: Mapping[str, list[tuple[int, int]]], decoding: Decoding, batch_tokens: int
    ) -> Iterator[Batch]:
        """Yield (b, max_new_tokens) int32 token ids, NOTHING behind the end of an answer.

        Args:
            requests: of each conversation, the positions of the answers that are wanted and their
                places among samples.
            decoding: how they are sampled.
            batch_tokens: of prompts and answers in one batch.
        """
        every = list(requests)
        for start in range(0, len(every), WINDOW_CONVERSATIONS):
            conversations = every[start : start + WINDOW_CONVERSATIONS]
            prompts, problems = self._tokenize_prompts(conversations)
            n_tokens = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
            is_long = (n_tokens == 0) | (n_tokens + decoding.max_new_tokens > self._max_length)
            problems[is_long & (problems == 0)] = TOO_LONG
            for i in np.flatnonzero(problems):
                positions = np.array([position for position, _ in requests[conversations[i]]], dtype=np.int64)
                nothing = np.full((len(positions), decoding.max_new_tokens), problems[i], dtype=np.int32)
                yield Batch(positions, nothing)
            fine = np.flatnonzero(problems == 0)
            n_answers = np.array([len(requests[conversation]) for conversation in conversations], dtype=np.int64)
            cost = (n_tokens[fine] + decoding.max_new_tokens) * n_answers[fine]
            # each batch is decoded token by token, so that few large ones are sooner done
            for batch in token_batches(cost, batch_tokens, max_padding=1):
                rows = fine[batch]
                places = [[sample for _, sample in requests[conversations[row]]] for row in rows]
                uniforms = None
                if decoding.temperature > 0:
                    of_each = [
                        sample_uniforms(conversations[row], decoding, at) for row, at in zip(rows, places, strict=True)
                    ]
                    uniforms = np.concatenate(of_each)
                ids = self._generate([prompts[row] for row in rows], n_answers[rows], decoding, uniforms)
                yield Batch(np.array([position for row in rows for position, _ in requests[conversations[row]]]), ids)

    def _generate(
        self,
        prompts: list[list[int]],
        n_answers: Int64,
        decoding: Decoding,
        uniforms: NDArray[np.float64] | None,
    ) -> Ids:
        """Return (sum of n_answers, max_new_tokens) token ids: answers of each of (b,) prompts.

        Where a model reads padding like any token, each answer is made alone: transformers also
        confuses the states that such models (RWKV) carry from token to token when several rows
        share a batch.
        """
        if not self._is_padded and n_answers.sum() > 1:
            every = np.repeat(np.arange(len(prompts)), n_answers)
            parts = [None] * len(every) if uniforms is None else np.split(uniforms, len(every))
            one = np.ones(1, dtype=np.int64)
            alone = [self._generate([prompts[i]], one, decoding, part) for i, part in zip(every, parts, strict=True)]
            return np.concatenate(alone)
        import torch
        from transformers import LogitsProcessorList

        lm = self.lm
        width = padded(lm, [np.array(prompt, dtype=np.int32) for prompt in prompts]).shape[1]
        pad = lm.tokenizer.pad_token_id
        # added to the tokenizer alone; what stands there is never looked at
        pad = pad if pad < lm.n_vocabulary else 0
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=lm.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=lm.device)
        more: dict[str, Any] = {}
        if uniforms is not None:
            thresholds = torch.from_numpy(uniforms).to(lm.device, _sum_dtype(lm.device))
            more["logits_processor"] = LogitsProcessorList([InverseTransform(thresholds, decoding)])
        n_new = decoding.max_new_tokens
        with inference(f"model '{lm.name}': a batch of {(int(n_answers.sum()), width)} tokens and their answers"):
            if n_answers.max() > 1:
                row_of = torch.from_numpy(np.repeat(np.arange(len(prompts)), n_answers)).to(lm.device)
                more |= _cache_prompts(lm, ids, mask, row_of)
                ids, mask = ids[row_of], mask[row_of]
            out = generate_plainly(lm.model, ids, mask, max_new_tokens=n_new, pad_id=pad, stops=self._stops, **more)
        answers = _cut_after_stop(out[:, width:].cpu().numpy(), self._stops, decoding.max_new_tokens)
        lm.n_tokens += sum(map(len, prompts)) + int((answers >= 0).sum())
        return answers

    def _option_batches(self, texts: pl.Series, n_options: int, batch_tokens: int) -> Iterator[Batch]:
        """Yield (b, m + 1) float64: log-probability of each option's token, and a problem or 0."""
        for start in range(0, len(texts), WINDOW_CONVERSATIONS):
            keys = [key.split(OPTIONS) for key in texts[start : start + WINDOW_CONVERSATIONS].to_list()]
            prompts, targets, problems = self._tokenize_options(keys)
            bad = np.flatnonzero(problems)
            if len(bad):
                nothing = np.full((len(bad), n_options), np.nan)
                yield Batch(start + bad, np.concatenate([nothing, problems[bad, None]], axis=1))
            fine = np.flatnonzero(problems == 0)
            n_tokens = np.array([len(prompts[i]) for i in fine], dtype=np.int64)
            for batch in token_batches(n_tokens, self.lm.limit_batch_tokens(batch_tokens)):
                rows = fine[batch]
                log_p = self._first_tokens([prompts[row] for row in rows], targets[rows])
                yield Batch(start + rows, np.concatenate([log_p, np.zeros((len(rows), 1))], axis=1))

    def _tokenize_options(self, keys: list[list[str]]) -> tuple[list[list[int]], Int64, Int64]:
        """Return the tokens before the answer, (n, m) options' tokens, and a problem or 0."""
        tokenizer, m = self.lm.tokenizer, len(keys[0]) - 1
        prompts, problems = self._tokenize_prompts([key[0] for key in keys])
        targets = np.zeros((len(keys), m), dtype=np.int64)
        is_long = np.array([not 0 < len(prompt) < self._max_length for prompt in prompts])
        problems[is_long & (problems == 0)] = TOO_LONG
        for i in np.flatnonzero(problems == 0):
            content = parse_json(keys[i][0])
            clean = clean_conversation(tokenizer, content["messages"], content["tools"], self._special_tokens)
            text = render_conversation(tokenizer, clean.messages, clean.tools) or ""
            whole = tokenizer([text + option for option in keys[i][1:]], add_special_tokens=False, verbose=False)
            prompts[i], first = _cut_to_options(prompts[i], whole["input_ids"])
            if len(set(first)) < m:
                problems[i] = ALIKE
                continue
            targets[i] = first
        return prompts, targets, problems

    def _first_tokens(self, prompts: list[list[int]], targets: Int64) -> NDArray[np.float64]:
        import torch

        ids = padded(self.lm, [np.array(prompt, dtype=np.int32) for prompt in prompts])
        last = np.arange(len(prompts)) * ids.shape[1] + np.array([len(prompt) - 1 for prompt in prompts])
        at = np.repeat(last, targets.shape[1])
        device = self.lm.device
        log_p = self.lm.log_probabilities(
            {"input_ids": torch.from_numpy(ids).to(device)},
            torch.from_numpy(at).to(device),
            torch.from_numpy(targets.reshape(-1)).to(device),
        )
        self.lm.n_tokens += sum(map(len, prompts))
        return log_p.reshape(targets.shape).astype(np.float64)


def _cut_to_options(prompt: list[int], whole: list[list[int]]) -> tuple[list[int], list[int]]:
    """Return the tokens before the options, and the first token of each that is there.

    The last tokens of a prompt need not stay what they are when an option follows: of "assistant: "
    and "A", a byte-level tokenizer makes ":" and " A". What all options have in common with the
    prompt is then asked.
    """
    is_added = bool(whole[0]) and prompt[:1] != whole[0][:1]  # a BOS that the text does not have
    body = prompt[1:] if is_added else prompt
    n = min(_n_common(body, ids) for ids in whole)
    if n < max(1, len(body) - MERGED):
        return prompt, []
    return prompt[: n + is_added], [ids[n] for ids in whole if len(ids) > n]


def _n_common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _sum_dtype(device: torch.device) -> torch.dtype:
    import torch

    return torch.float32 if device.type == "mps" else torch.float64  # Apple GPUs have no float64


def _cache_prompts(lm: LanguageModel, ids: torch.Tensor, mask: torch.Tensor, row_of: torch.Tensor) -> dict[str, Any]:
    """Return keys and values of the prompts without their last token, for (k,) rows; or nothing.

    Nothing where a layer keeps something else than all keys and values, or the model's positions
    cannot be told.
    """
    if ids.shape[1] < 2 or not has_plain_cache(lm):
        return {}
    from transformers import DynamicCache

    cache = DynamicCache(config=lm.model.config)
    before = mask[:, :-1]
    position = (before.cumsum(dim=1) - 1).clamp(min=0)
    lm.body(input_ids=ids[:, :-1], attention_mask=before, position_ids=position, past_key_values=cache, use_cache=True)
    cache.batch_select_indices(row_of)
    return {"past_key_values": cache}


def _cut_after_stop(out: Int64, stops: frozenset[int], width: int) -> Ids:
    """Return (b, width) int32: each answer with its first stop, and NOTHING behind it."""
    is_stop = np.isin(out, sorted(stops))
    is_behind = np.cumsum(is_stop, axis=1) - is_stop > 0
    answers = np.full((len(out), width), NOTHING, dtype=np.int32)
    answers[:, : out.shape[1]] = np.where(is_behind, NOTHING, out)
    return answers
