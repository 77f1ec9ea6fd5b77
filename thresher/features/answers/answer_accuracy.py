"""What a language model knows already: how often it gives a row's short answer behind examples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import xxhash

from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.answers.prompts import missing_series, plain
from thresher.features.compute import column_values
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues, describe_missing
from thresher.features.settings import AnswerAccuracySettings
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import Generation, TextGenerator, conversation_to_json
from thresher.models.generation.load import load_generator
from thresher.numeric.arrays import Float64, Int64

if TYPE_CHECKING:
    from thresher.dataset import Dataset

RECIPE = "knowledge-2"
MANY_ANSWERS = 1_000  # from which their number is told before
CUT = "an answer was right so far when it was cut off at max_new_tokens; raise max_new_tokens"
ANSWER_ACCURACY = np.dtype([("likeliest", np.float64), ("drawn", np.float64)])


class AnswerAccuracy(FeatureProvider):
    """Shares of right answers, as in SliCK: P0 of the likeliest answers, P1 of the sampled ones.

    A row's question stands behind `n_examples` other rows, in `n_prompts` prompts with other
    examples each. An answer is right when it is the row's response word by word, white space apart.
    P1 decides only where P0 is 0, so no answers are drawn for the other rows, whose `drawn` is NaN.

    The examples of a prompt are the rows that a hash of the seed, the prompt's number and the row's
    text puts first (of `context.examples`, or of the rows themselves), but for those that ask the
    row's own question. So an entry depends on the row and on these few examples, not on the order
    of the rows, and little changes with a pool that grows. Responses of more than `max_words` words
    have no value: for them exact match says nothing. Nor has a row that was given an answer which
    was right as far as `max_new_tokens` reached: the limit decides there, not the model.

    Source: Gekhman et al. 2024, arXiv:2405.05904. Differs: the paper's examples are of the row's
    relation, here they are only with `by`; questions and answers are turns of the model's chat
    template.
    """

    name: ClassVar[str] = "answer_accuracy"
    passes: ClassVar[str] = (
        "the language model generates n_prompts answers for each of n rows, and n_prompts n_samples for each "
        "row whose greedy answers are never right"
    )
    is_pairwise: ClassVar[bool] = True

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model and how it is asked, and the fingerprint of both."""
        generator, settings = load_generator(context), context.answer_accuracy
        return {
            "model": generator.name,
            **{name: str(getattr(settings, name)) for name in ("n_prompts", "n_examples", "n_samples", "by", "seed")},
            "fingerprint": combine_fingerprints(RECIPE, generator.fingerprint, repr(settings)),
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) of ANSWER_ACCURACY, NaN with its reason for a row without short answer.

        Raises:
            InputError: the rows are plain text, or a model or server cannot be asked.
        """
        examples = dataset if context.examples is None else context.examples
        if "text" in (dataset.kind, examples.kind):
            raise InputError("answer_accuracy: rows need a prompt and a response, found plain text")
        generator, settings = load_generator(context), context.answer_accuracy
        # referenced, so that the features computed after this one share the model
        self._generator = generator
        questions = _Questions.from_rows(dataset, examples, settings)
        values = np.full(len(dataset), np.nan, dtype=ANSWER_ACCURACY)
        askable = np.flatnonzero([problem is None for problem in questions.problems])
        context.report_notes(self.name, 0, _warn_of_cost(len(askable), settings))
        values["likeliest"][askable] = _measure_accuracy(questions, askable, settings.likeliest, generator, context)
        unknown = np.flatnonzero(values["likeliest"] == 0)
        values["drawn"][unknown] = _measure_accuracy(questions, unknown, settings.drawn, generator, context)
        missing = missing_series(questions.problems)
        notes = {"rows": len(dataset), "rows_missing": len(missing) - missing.null_count(), "rows_drawn": len(unknown)}
        context.report_notes(self.name, len(values), (*generator.notes(), *describe_missing(self.name, notes)))
        values["likeliest"][[problem is not None for problem in questions.problems]] = np.nan
        return FeatureValues(values=values, missing=missing, notes=notes)


@dataclass(frozen=True)
class _Questions:
    """The prompts of each row.

    Attributes:
        conversations: (n,) of (n_prompts,) conversations; none for a row with a problem.
        answers: (n,) the right answer.
        problems: (n,) why a row is not asked, or None; more are added where there is no answer.
    """

    conversations: list[list[str]]
    answers: list[str]
    problems: list[str | None]

    @classmethod
    def from_rows(cls, dataset: Dataset, examples: Dataset, settings: AnswerAccuracySettings) -> _Questions:
        groups = _Examples.group_rows(examples, settings)
        names = _groups(dataset, settings)
        conversations: list[list[str]] = []
        problems: list[str | None] = []
        pairs = list(zip(dataset.frame["prompt"], dataset.frame["response"], strict=True))
        for (prompt, response), name in zip(pairs, names, strict=True):
            shown = groups[name].choose_examples(prompt) if name in groups else None
            problem = None
            if not _is_short(response, settings):
                problem = f"its response has more than {settings.max_words} words; only short answers are compared"
            elif shown is None and settings.n_examples:
                problem = f"there are fewer than {settings.n_examples} other rows with short answers as examples"
            problems.append(problem)
            shots = [()] * settings.n_prompts if shown is None else shown
            conversations.append([] if problem is not None else [_conversation(each, prompt) for each in shots])
        return cls(conversations, [plain(response) for _, response in pairs], problems)


@dataclass(frozen=True)
class _Examples:
    """Rows of one group that can be examples: of each prompt all, in the order of their hashes."""

    ranked: list[list[tuple[str, str]]]
    n_examples: int

    @classmethod
    def group_rows(cls, rows: Dataset, settings: AnswerAccuracySettings) -> dict[str, _Examples]:
        pairs: dict[str, set[tuple[str, str]]] = {}
        for prompt, response, name in zip(
            rows.frame["prompt"], rows.frame["response"], _groups(rows, settings), strict=True
        ):
            if _is_short(response, settings):
                pairs.setdefault(name, set()).add((prompt, response))
        return {
            name: cls(
                [
                    sorted(members, key=lambda pair: _rank_key(pair, number, settings.seed))
                    for number in range(settings.n_prompts)
                ],
                settings.n_examples,
            )
            for name, members in pairs.items()
        }

    def choose_examples(self, prompt: str) -> list[tuple[tuple[str, str], ...]] | None:
        """Return the examples of each of a row's prompts, or None where there are too few."""
        examples = []
        for ranked in self.ranked:
            chosen = tuple(itertools.islice((pair for pair in ranked if pair[0] != prompt), self.n_examples))
            if len(chosen) < self.n_examples:
                return None
            examples.append(chosen)
        return examples


def _rank_key(pair: tuple[str, str], number: int, seed: int) -> tuple[int, tuple[str, str]]:
    """Return what orders the examples of a prompt: a hash of seed, prompt number and row."""
    text = f"{seed}\0{number}\0{len(pair[0])}\0{pair[0]}{pair[1]}"
    return xxhash.xxh3_128_intdigest(text.encode()), pair


def _groups(rows: Dataset, settings: AnswerAccuracySettings) -> list[str]:
    return [""] * len(rows) if settings.by is None else column_values(rows, settings.by).to_list()


def _is_short(response: str, settings: AnswerAccuracySettings) -> bool:
    return len(response.split()) <= settings.max_words


def _conversation(examples: Sequence[tuple[str, str]], prompt: str) -> str:
    turns = [
        {"role": role, "content": text}
        for pair in examples
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return conversation_to_json([*turns, {"role": "user", "content": prompt}])


def _warn_of_cost(n_rows: int, settings: AnswerAccuracySettings) -> list[str]:
    """Return what so many rows cost at most, where that is much; cached answers cost nothing."""
    greedy = n_rows * settings.n_prompts
    sampled = greedy * settings.n_samples
    if greedy + sampled < MANY_ANSWERS:
        return []
    return [
        f"answer_accuracy: {greedy:,} answers are needed, and up to {sampled:,} more for rows that the model gets "
        f"wrong, less what is cached; --dry-run estimates the time, and fewer n_prompts ({settings.n_prompts}) or "
        f"n_samples ({settings.n_samples}) take less"
    ]


def _measure_accuracy(
    questions: _Questions, rows: Int64, decoding: Decoding, generator: TextGenerator, context: FeatureContext
) -> Float64:
    """Return the share of right answers to each row's prompts, (m,); NaN and a problem for none."""
    kind = "likeliest" if decoding.temperature == 0 else "drawn"
    conversations = [conversation for row in rows for conversation in questions.conversations[row]]
    answers = iter(
        generator.generate(conversations, decoding, stage=f"answer_accuracy: {kind} answers", context=context)
    )
    accuracy = np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        samples = [answer for _ in questions.conversations[row] for answer in next(answers)]
        texts = [plain(answer.text) for answer in samples if answer.text is not None]
        if any(_is_undecided(answer, questions.answers[row]) for answer in samples):
            questions.problems[row] = CUT
        elif texts:
            accuracy[place] = float(np.mean([text == questions.answers[row] for text in texts]))
        else:
            questions.problems[row] = next(answer.problem for answer in samples if answer.problem is not None)
    return accuracy


def _is_undecided(answer: Generation, right: str) -> bool:
    """Tell whether an answer was cut before it could be right or wrong."""
    if answer.text is None or not answer.is_cut:
        return False
    text = plain(answer.text.rstrip("\ufffd"))  # half a character at the limit
    return text != right and right.startswith(text)
