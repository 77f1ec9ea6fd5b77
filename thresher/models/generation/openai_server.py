"""An OpenAI-compatible server in place of a local model: vLLM, llama.cpp, TGI, Ollama and others.

    --model http://localhost:8000/v1#Qwen/Qwen2.5-7B-Instruct
    --model 'https://api.example.com/v1?in_flight=16&per_minute=600&timeout=60&tries=8#model-name'

The model's name may be left out where the server has one only. A key is taken from the environment
variable THRESHER_API_KEY, and stands in no manifest, message or cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import xxhash

from thresher.artifacts.json_text import encode_json, parse_json
from thresher.cache.answer_cache import AnswerCache
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError, did_you_mean, first_three
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import Generation, OptionProbabilities
from thresher.models.generation.http_client import RefusedError, ServerClient
from thresher.models.generation.responses import find_named_option, keep_text, keep_top_tokens, option_probabilities
from thresher.models.server_address import ServerAddress
from thresher.models.stages import RequestStage
from thresher.progress import OnProgress, Progress

if TYPE_CHECKING:
    from thresher.models.context import ModelContext

RECIPE = "server-1"
MAX_REFUSED = 3  # refusals before any answer, after which no more is asked
N_TOP = 20  # likeliest tokens whose log-probability is asked for: the most that OpenAI gives
CHOICE_TOKENS = 8
UNPARSABLE = "the server's answer names none of the options, or several"

Body = dict[str, Any]
Reduce = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class _Request:
    key: str
    body: Body


Fetch = Callable[[_Request], dict[str, Any]]


class OpenAIGenerator:
    """A model behind an OpenAI-compatible server.

    Each answer is one request, stored as soon as it is there under the hash of the address, the
    model and the request: after a kill only what was under way is asked for again. A drawn answer
    has a seed of its own, from the conversation, the settings' seed and its place among the
    samples; whether the server keeps to it, and whether its batches change an answer, is the
    server's affair, so here a stored answer is what makes a run repeatable. A server that changes
    the model behind a name is not found out.
    """

    def __init__(self, address: str) -> None:
        self._address = ServerAddress.parse(address)
        self._n_by_text = 0
        self._takes_logprobs = True

    @cached_property
    def model(self) -> str:
        """The name of the model on the server; asks the server where the address has none.

        Raises:
            InputError: the server does not have exactly one model.
        """
        if self._address.model is not None:
            return self._address.model
        client = ServerClient(self._address)
        try:
            names = client.models() or []
        finally:
            client.close()
        if len(names) != 1:
            raise InputError(
                f"model '{self._address.url}': must name one of the server's models behind a #, found "
                f"{first_three(names) or 'no list of them'}; for example {self._address.url}#{[*names, 'MODEL'][0]}"
            )
        return names[0]

    @property
    def name(self) -> str:
        """Address and model."""
        return f"{self._address.url}#{self.model}"

    @property
    def fingerprint(self) -> str:
        """Hash of address and model: what the server's weights are cannot be known."""
        return combine_fingerprints(RECIPE, self.name)

    def generate(
        self, conversations: Sequence[str], decoding: Decoding, *, stage: str, context: ModelContext
    ) -> list[list[Generation]]:
        """Return the answers of each conversation; one request for each that is not stored.

        Raises:
            InputError: the server cannot be reached, does not know the model, refuses the key or
                does not answer.
        """
        n = decoding.n_samples
        requests = [self._request(conversation, decoding, i) for conversation in conversations for i in range(n)]
        answers = self._ask(requests, keep_text, stage=stage, context=context)
        flat = [_read_generation(answers[request.key]) for request in requests]
        return [flat[start : start + n] for start in range(0, len(flat), n)]

    def score_options(
        self, conversations: Sequence[str], options: Sequence[str], *, stage: str, context: ModelContext
    ) -> OptionProbabilities:
        """Return each option's probability as the answer's first word, or 1 for the one named.

        The probabilities are those of the 20 likeliest tokens, where the server gives them; an
        option that is not among them has the share 0. Otherwise the answer is read, and one that
        names no option, or several, has no share.

        Raises:
            InputError: the server cannot be reached, does not know the model, refuses the key or
                does not answer.
        """
        likeliest = Decoding(max_new_tokens=CHOICE_TOKENS)
        requests = [self._request(conversation, likeliest, 0, with_top=True) for conversation in conversations]
        answers = self._ask(requests, keep_top_tokens, stage=stage, context=context)
        probabilities = np.full((len(conversations), len(options)), np.nan)
        problems: list[str | None] = [None] * len(conversations)
        for i, request in enumerate(requests):
            content = answers[request.key]
            if "problem" in content:
                problems[i] = str(content["problem"])
                continue
            p = option_probabilities(content["top"], options)
            if p is None:
                p = find_named_option(content["text"], options)
                self._n_by_text += p is not None
            if p is None:
                problems[i] = UNPARSABLE
            else:
                probabilities[i] = p
        return OptionProbabilities(probabilities, problems)

    def notes(self) -> list[str]:
        """Return whether choices had to be read from text."""
        if not self._n_by_text:
            return []
        return [
            f"model '{self.name}': gives no log-probabilities, so {self._n_by_text:,} choices are 1 or 0 as its answer "
            f"says"
        ]

    def _request(self, conversation: str, decoding: Decoding, sample: int, *, with_top: bool = False) -> _Request:
        content = parse_json(conversation)
        body: Body = {
            "model": self.model,
            "messages": [{key: each[key] for key in each if key != "weight"} for each in content["messages"]],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
        }
        if content["tools"]:
            body["tools"] = content["tools"]
        if decoding.top_p < 1:
            body["top_p"] = decoding.top_p
        if decoding.temperature > 0:
            seed = xxhash.xxh3_64_intdigest(f"{decoding.seed}\0{sample}\0{conversation}".encode())
            body["seed"] = seed % 2**31
        if with_top:
            body |= {"logprobs": True, "top_logprobs": N_TOP}
        text = encode_json([RECIPE, self._address.url, sample, body], option=orjson.OPT_SORT_KEYS)
        return _Request(xxhash.xxh3_128_hexdigest(text), body)

    def _ask(
        self, requests: Sequence[_Request], reduce: Reduce, *, stage: str, context: ModelContext
    ) -> dict[str, dict[str, Any]]:
        """Return what is stored of the answer to each request, by key, asking the server."""
        by_key = {request.key: request for request in requests}

        def fetch() -> dict[str, dict[str, Any]]:

            def report_damage(note: str) -> None:
                if context.on_progress is not None:
                    context.on_progress(Progress(stage=stage, done=0, total=len(by_key), note=note, is_warning=True))

            root = None if context.cache is None else context.cache.root
            store = AnswerCache(root, on_damage=report_damage)
            try:
                answers = store.get(list(by_key))
                missing = [request for key, request in by_key.items() if key not in answers]
                run = _Run(store, answers, total=len(by_key), stage=stage, on_progress=context.on_progress)
                run.report()
                if missing:
                    self._finish(run, missing, reduce)
            finally:
                store.close()
            return answers

        placeholder = {"text": "", "is_cut": False, "top": []}
        return context.run_requests(RequestStage(name=stage, keys=list(by_key), fetch=fetch, placeholder=placeholder))

    def _finish(self, run: _Run, missing: Sequence[_Request], reduce: Reduce) -> None:
        client = ServerClient(self._address)
        try:
            # refuses a server that cannot be reached, before a request is tried often
            known = client.models()

            def fetch(request: _Request) -> dict[str, Any]:
                return self._fetch(request, client, known, reduce, run.store)

            run.finish(missing, fetch, self._unusable, client)
        finally:
            client.close()

    def _fetch(
        self, request: _Request, client: ServerClient, known: list[str] | None, reduce: Reduce, store: AnswerCache
    ) -> dict[str, Any]:
        """Ask for one answer and store it; a refusal of this request alone is not stored.

        Raises:
            InputError: the server does not know the model, refuses the key or does not answer.
        """
        try:
            content = reduce(self._answer(request.body, client))
        except RefusedError as refused:
            if refused.status == 404:
                raise InputError(self._unknown(refused.reason, known or [])) from None
            if refused.status == 200:
                return {"problem": f"the server's answer cannot be read: {refused.reason}"}
            return {"problem": f"the server refuses the request: {refused.reason}"}
        store.put(request.key, self.name, content)
        return content

    def _answer(self, body: Body, client: ServerClient) -> dict[str, Any]:
        """Ask the server, without log-probabilities where it does not take a request for them."""
        if self._takes_logprobs or "logprobs" not in body:
            try:
                return client.chat(body)
            except RefusedError as refused:
                if "logprobs" not in body or "logprob" not in refused.reason.lower():
                    raise
        self._takes_logprobs = False
        return client.chat({name: value for name, value in body.items() if "logprobs" not in name})

    def _unusable(self, reason: str) -> InputError:
        return InputError(
            f"model '{self.name}': the server must take requests for chat completions, and it refuses the first with "
            f"'{reason}'; check the model's name and what the server supports"
        )

    def _unknown(self, reason: str, known: Sequence[str]) -> str:
        has = f"it has: {first_three(known)}{did_you_mean(self.model, known)}" if known else f"it says '{reason}'"
        return f"model '{self.name}': the server must have this model, and does not find it (status 404); {has}"


class _Run:
    """Requests on their way, so many at a time, and what has come back of them."""

    def __init__(
        self,
        store: AnswerCache,
        answers: dict[str, dict[str, Any]],
        *,
        total: int,
        stage: str,
        on_progress: OnProgress | None,
    ) -> None:
        self.store = store
        self._answers = answers
        self._n_cached = self._n_good = len(answers)
        self._total = total
        self._stage = stage
        self._on_progress = on_progress

    def report(self) -> None:
        if self._on_progress is not None:
            done = Progress(stage=self._stage, done=len(self._answers), total=self._total, n_cached=self._n_cached)
            self._on_progress(done)

    def finish(
        self,
        missing: Sequence[_Request],
        fetch: Fetch,
        unusable: Callable[[str], InputError],
        client: ServerClient,
    ) -> None:
        """Ask for all that is missing; one after the other until the server has taken a request.

        After an interruption or an error nothing new is sent, and what is under way is waited for
        and stored.
        """
        start = 0
        while start < len(missing) and not self._n_good:
            self._keep(missing[start], fetch(missing[start]))
            start += 1
            if not self._n_good and start == min(MAX_REFUSED, len(missing)):
                raise unusable(str(self._answers[missing[start - 1].key]["problem"]))
        pool = ThreadPoolExecutor(client.address.n_in_flight, thread_name_prefix="server")
        try:
            self._fetch_all(pool, missing[start:], fetch, 2 * client.address.n_in_flight)
        except BaseException:
            client.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch_all(self, pool: ThreadPoolExecutor, missing: Sequence[_Request], fetch: Fetch, n_queued: int) -> None:
        remaining = iter(missing)
        under_way: dict[Future[dict[str, Any]], _Request] = {}
        while True:
            while len(under_way) < n_queued and (request := next(remaining, None)) is not None:
                under_way[pool.submit(fetch, request)] = request
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                self._keep(under_way.pop(future), future.result())

    def _keep(self, request: _Request, content: dict[str, Any]) -> None:
        self._answers[request.key] = content
        self._n_good += "problem" not in content
        self.report()


def _read_generation(content: Mapping[str, Any]) -> Generation:
    if "problem" in content:
        return Generation(None, problem=str(content["problem"]))
    return Generation(str(content["text"]), is_cut=bool(content["is_cut"]))
