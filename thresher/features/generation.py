"""Answers of a causal language model on this machine, batched; and what it would choose among given answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.features.asking import Decoding
from thresher.features.cached import Batch, ComputeBatches, values_of
from thresher.features.chat import TEMPLATE_REFUSES, render_question, turn_end_ids
from thresher.features.fingerprint import joined_fingerprint
from thresher.features.language_model import LanguageModel, language_model
from thresher.features.likelihood import padded
from thresher.features.respondent import Answer, Choices
from thresher.features.scored_rows import DEFAULT_MAX_LENGTH
from thresher.features.token_batches import token_batches

if TYPE_CHECKING:
    import torch

    from thresher.features.context import FeatureContext

RECIPE = "generation-1"
WINDOW_TALKS = 2048  # conversations tokenised and sorted by length together
OPTIONS = "\0"  # between a question and its options in a key

# What stands in place of token ids: behind the end of an answer, and where there is none.
NOTHING, TOO_LONG, REFUSED, ALIKE = -1, -2, -3, -4
_PROBLEMS = {
    TOO_LONG: "the prompt leaves no room for an answer within max_length",
    REFUSED: TEMPLATE_REFUSES,
    ALIKE: "the model's tokenizer does not tell the options apart",
}
Ids = NDArray[np.int32]


class LocalRespondent:
    """A causal language model of this machine that writes.

    Conversations are rendered by the model's chat template, read in batches of like length, padded on the left. An
    answer depends on its conversation, the settings and the seed alone, not on its batch or order: each drawn answer
    has random numbers of its own. Arithmetic sets the limit: padding and batch size change a probability by rounding
    (about 1e-6 in float32, 1e-2 in bfloat16), so two nearly equal tokens can change places, and what follows with them.

    Attributes:
        lm: the model.
    """

    def __init__(self, context: FeatureContext) -> None:
        self.lm = language_model(context.model, device=context.device, dtype=context.dtype)
        limits = (context.max_length or DEFAULT_MAX_LENGTH, self.lm.max_positions)
        self._max_length = min(limit for limit in limits if limit is not None)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.lm.name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, precision and longest input."""
        return joined_fingerprint(self.lm.fingerprint, f"{RECIPE}-{self._max_length}")

    def answers(
        self, talks: Sequence[str], decoding: Decoding, *, stage: str, context: FeatureContext
    ) -> list[list[Answer]]:
        """Return the answers of each conversation; finished ones come from the cache.

        Cost: one pass over each prompt, whatever the number of samples, where the model keeps its keys and values in
        the plain way; then one step of a batch per token. A batch holds prompts and answers of `context.batch_tokens`.
        """

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return self._answer_batches(texts, decoding, context.batch_tokens)

        values = self._values(talks, batches, "answers", str(decoding), stage, context)
        if values is None:
            return []
        flat: list[Ids] = [ids for row in values for ids in row]
        stops = np.array(sorted(self._stops))
        # What ends an answer is no part of it, and some tokenizers do not count it among their special tokens.
        words = [ids[(ids >= 0) & ~np.isin(ids, stops)] for ids in flat]
        texts = self.lm.tokenizer.batch_decode(words, skip_special_tokens=True)
        found = [self._answer(ids, text, stops) for ids, text in zip(flat, texts, strict=True)]
        n = decoding.n_samples
        return [found[start : start + n] for start in range(0, len(found), n)]

    def _answer(self, ids: Ids, text: str, stops: NDArray[np.int64]) -> Answer:
        if ids[0] in _PROBLEMS:
            return Answer(None, problem=_PROBLEMS[int(ids[0])])
        return Answer(text.strip(), is_cut=bool(ids[-1] != NOTHING and ids[-1] not in stops))

    def choices(self, talks: Sequence[str], options: Sequence[str], *, stage: str, context: FeatureContext) -> Choices:
        """Return the share of each option's first token in the model's next one. Cost: one forward per conversation."""

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return self._choice_batches(texts, len(options), context.batch_tokens)

        keys = [OPTIONS.join((talk, *options)) for talk in talks]
        values = self._values(keys, batches, "choices", "", stage, context)
        if values is None:
            return Choices(np.zeros((0, len(options))), [])
        log_p, codes = values[:, :-1].astype(np.float64), values[:, -1].astype(np.int64)
        fine = codes == 0
        shares = np.full(log_p.shape, np.nan)
        shares[fine] = np.exp(log_p[fine] - np.logaddexp.reduce(log_p[fine], axis=1, keepdims=True))
        return Choices(shares, [_PROBLEMS.get(int(code)) for code in codes])

    def notes(self) -> list[str]:
        """Return what the user should know of how the model was run."""
        return list(self.lm.notes())

    def _values(
        self,
        keys: Sequence[str],
        batches: ComputeBatches,
        feature: str,
        how: str,
        stage: str,
        context: FeatureContext,
    ) -> NDArray[Any] | None:
        shelf = None
        if context.cache is not None:
            fingerprint = joined_fingerprint(self.fingerprint, how)
            shelf = context.cache.shelf(feature, self.name, fingerprint)
        texts = pl.Series("talk", keys, dtype=pl.String)
        return values_of(texts, batches, feature=stage, shelf=shelf, on_progress=context.on_progress)

    @cached_property
    def _stops(self) -> frozenset[int]:
        """Tokens that end an answer: as the model, its tokenizer or its chat template says."""
        own = None
        for name in ("generation_config.json", "config.json"):  # read here: cached answers need no weights
            path = self.lm.base.folder / name
            if own is None and path.is_file():
                own = json.loads(path.read_bytes()).get("eos_token_id")
        ends = {*(own if isinstance(own, list) else [own]), self.lm.tokenizer.eos_token_id}
        return frozenset((ends | turn_end_ids(self.lm.tokenizer)) - {None})

    def _prompts(self, talks: Sequence[str]) -> tuple[list[list[int]], NDArray[np.int64]]:
        """Return the token ids of each conversation, up to where the answer starts, and a problem or 0."""
        tokenizer = self.lm.tokenizer
        contents = [orjson.loads(talk) for talk in talks]
        texts = [render_question(tokenizer, content["messages"], content["tools"]) for content in contents]
        problems = np.array([REFUSED if text is None else 0 for text in texts], dtype=np.int64)
        ids: list[list[int]] = tokenizer([text or "" for text in texts], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        bos = tokenizer.bos_token_id
        return [[bos, *row] if bos is not None and row[:1] != [bos] else row for row in ids], problems

    def _answer_batches(self, texts: pl.Series, decoding: Decoding, batch_tokens: int) -> Iterator[Batch]:
        """Yield (b, n_samples, max_new_tokens) int32 token ids, NOTHING behind the end of an answer."""
        shape = (decoding.n_samples, decoding.max_new_tokens)
        for start in range(0, len(texts), WINDOW_TALKS):
            talks = texts[start : start + WINDOW_TALKS].to_list()
            prompts, problems = self._prompts(talks)
            n_tokens = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
            is_long = (n_tokens == 0) | (n_tokens + decoding.max_new_tokens > self._max_length)
            problems[is_long & (problems == 0)] = TOO_LONG
            bad = np.flatnonzero(problems)
            if len(bad):
                yield Batch(
                    start + bad, np.broadcast_to(problems[bad, None, None], (len(bad), *shape)).astype(np.int32)
                )
            fine = np.flatnonzero(problems == 0)
            cost = (n_tokens[fine] + decoding.max_new_tokens) * decoding.n_samples
            for batch in token_batches(cost, batch_tokens):
                rows = fine[batch]
                uniforms = None
                if decoding.temperature > 0:
                    uniforms = np.stack([draws(talks[row], decoding) for row in rows]).reshape(-1, shape[1])
                ids = self._generate([prompts[row] for row in rows], decoding, uniforms)
                yield Batch(start + rows, ids.reshape(len(rows), *shape))

    def _generate(self, prompts: list[list[int]], decoding: Decoding, uniforms: NDArray[np.float64] | None) -> Ids:
        """Return (b * n_samples, max_new_tokens) token ids of one batch."""
        import torch
        from transformers import LogitsProcessorList

        lm, k = self.lm, decoding.n_samples
        width = max(len(prompt) for prompt in prompts)
        pad = lm.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=lm.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=lm.device)
        more: dict[str, Any] = {}
        if uniforms is not None:
            drawn = torch.from_numpy(uniforms).to(lm.device, _sum_dtype(lm.device))
            more["logits_processor"] = LogitsProcessorList([_Draw(drawn, decoding)])
        try:
            with torch.inference_mode():
                if k > 1:
                    more |= _read_once(lm, ids, mask, k)
                    ids, mask = ids.repeat_interleave(k, dim=0), mask.repeat_interleave(k, dim=0)
                out = lm.model.generate(
                    input_ids=ids, attention_mask=mask, generation_config=self._generation_config(decoding), **more
                )
        except torch.OutOfMemoryError:
            raise InputError(
                f"model '{lm.name}': a batch of {tuple(ids.shape)} tokens and their answers must fit the device's "
                f"memory and does not; set batch_tokens lower, or use another device"
            ) from None
        found = _until_end(out[:, width:].cpu().numpy(), self._stops, decoding.max_new_tokens)
        lm.n_tokens += sum(map(len, prompts)) + int((found >= 0).sum())
        return found

    def _generation_config(self, decoding: Decoding) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,  # `_Draw` leaves one token where answers are drawn
            # transformers fills what is not set here from the model's generation_config.json
            num_beams=1,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_new_tokens=0,  # goes before min_length
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=self.lm.tokenizer.pad_token_id,
            eos_token_id=sorted(self._stops),
            use_cache=True,
        )

    def _choice_batches(self, texts: pl.Series, n_options: int, batch_tokens: int) -> Iterator[Batch]:
        """Yield (b, m + 1) float64: log-probability of each option's token, and a problem or 0."""
        for start in range(0, len(texts), WINDOW_TALKS):
            keys = [key.split(OPTIONS) for key in texts[start : start + WINDOW_TALKS].to_list()]
            prompts, targets, problems = self._questions(keys)
            bad = np.flatnonzero(problems)
            if len(bad):
                nothing = np.full((len(bad), n_options), np.nan)
                yield Batch(start + bad, np.concatenate([nothing, problems[bad, None]], axis=1))
            fine = np.flatnonzero(problems == 0)
            n_tokens = np.array([len(prompts[i]) for i in fine], dtype=np.int64)
            for batch in token_batches(n_tokens, self.lm.fitting(batch_tokens)):
                rows = fine[batch]
                log_p = self._first_tokens([prompts[row] for row in rows], targets[rows])
                yield Batch(start + rows, np.concatenate([log_p, np.zeros((len(rows), 1))], axis=1))

    def _questions(self, keys: list[list[str]]) -> tuple[list[list[int]], NDArray[np.int64], NDArray[np.int64]]:
        """Return the tokens before the answer, (n, m) the token of each option there, and a problem or 0."""
        tokenizer, m = self.lm.tokenizer, len(keys[0]) - 1
        prompts, problems = self._prompts([key[0] for key in keys])
        targets = np.zeros((len(keys), m), dtype=np.int64)
        is_long = np.array([not 0 < len(prompt) < self._max_length for prompt in prompts])
        problems[is_long & (problems == 0)] = TOO_LONG
        for i in np.flatnonzero(problems == 0):
            content = orjson.loads(keys[i][0])
            text = render_question(tokenizer, content["messages"], content["tools"]) or ""
            whole = tokenizer([text + option for option in keys[i][1:]], add_special_tokens=False, verbose=False)
            behind = [_behind(prompts[i], ids) for ids in whole["input_ids"]]
            first = [token for token in behind if token is not None]
            if len(set(first)) < m:
                problems[i] = ALIKE
                continue
            targets[i] = first
        return prompts, targets, problems

    def _first_tokens(self, prompts: list[list[int]], targets: NDArray[np.int64]) -> NDArray[np.float64]:
        import torch

        ids = padded([np.array(prompt, dtype=np.int32) for prompt in prompts])
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


def _behind(prompt: list[int], whole: list[int]) -> int | None:
    """Return the first token behind a prompt, which may have a BOS that the whole lacks; None if they differ before."""
    for before in (prompt, prompt[1:]):
        if len(whole) > len(before) and whole[: len(before)] == before:
            return whole[len(before)]
    return None


def draws(talk: str, decoding: Decoding) -> NDArray[np.float64]:
    """Return the random numbers behind the drawn answers of a conversation: (n_samples, max_new_tokens) in 0..1.

    Those of a sample depend on the seed, the conversation and the sample's place alone, so that more samples or longer
    answers leave what was there unchanged.
    """
    seeds = [xxhash.xxh3_128_intdigest(f"{decoding.seed}\0{i}\0{talk}".encode()) for i in range(decoding.n_samples)]
    return np.stack([np.random.default_rng(seed).random(decoding.max_new_tokens) for seed in seeds])


class _Draw:
    """Leaves one token possible in each row: where the running sum of the probabilities passes its random number."""

    def __init__(self, uniforms: torch.Tensor, decoding: Decoding) -> None:
        self._uniforms = uniforms  # (b, steps)
        self._decoding = decoding
        self._step = 0

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        p = (scores.to(self._uniforms.dtype) / self._decoding.temperature).softmax(dim=-1)  # (b, vocabulary)
        if self._decoding.top_p < 1:
            best, order = p.sort(dim=-1, descending=True)
            before = best.cumsum(dim=-1) - best
            p = p.masked_fill((before >= self._decoding.top_p).gather(-1, order.argsort(dim=-1)), 0.0)
        running = p.cumsum(dim=-1)
        wanted = self._uniforms[:, self._step, None] * running[:, -1:]
        self._step += 1
        token = torch.searchsorted(running, wanted, right=True).clamp(max=p.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def _sum_dtype(device: torch.device) -> torch.dtype:
    import torch

    return torch.float32 if device.type == "mps" else torch.float64  # Apple GPUs have no float64


def _read_once(lm: LanguageModel, ids: torch.Tensor, mask: torch.Tensor, k: int) -> dict[str, Any]:
    """Return keys and values of the prompts but for their last token, once for each of `k` samples; or nothing.

    Nothing where a layer keeps something else than all keys and values, or the model's positions cannot be told.
    """
    import inspect

    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    body = lm.model.base_model
    cache = DynamicCache(config=lm.model.config)
    can_keep = all(type(layer) is DynamicLayer for layer in cache.layers)
    if ids.shape[1] < 2 or not can_keep or "position_ids" not in inspect.signature(body.forward).parameters:
        return {}
    before = mask[:, :-1]
    position = (before.cumsum(dim=1) - 1).clamp(min=0)
    body(input_ids=ids[:, :-1], attention_mask=before, position_ids=position, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(k)
    return {"past_key_values": cache}


def _until_end(out: NDArray[np.int64], stops: frozenset[int], width: int) -> Ids:
    """Return (b, width) int32: each answer as far as its first stop, which is kept; NOTHING behind it."""
    is_stop = np.isin(out, sorted(stops))
    is_behind = np.cumsum(is_stop, axis=1) - is_stop > 0
    found = np.full((len(out), width), NOTHING, dtype=np.int32)
    found[:, : out.shape[1]] = np.where(is_behind, NOTHING, out)
    return found
