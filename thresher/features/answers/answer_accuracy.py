"""What a language model knows already: how often it gives a row's short answer behind a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.answers.prompts import missing_series, plain
from thresher.features.compute import column_values
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.features.settings import AnswerAccuracySettings
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import Generation, TextGenerator, conversation_to_json
from thresher.models.generation.load import load_generator
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset

RECIPE = "knowledge-2"
CUT = "an answer ended at max_new_tokens and was right so far; raise max_new_tokens"
ANSWER_ACCURACY = np.dtype([("likeliest", np.float64), ("drawn", np.float64)])


class AnswerAccuracy(FeatureProvider):
    """Shares of right answers, as SliCK has them: P0 of the likeliest answers, P1 of the drawn ones.

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
        "the language model writes n_prompts answers of each of n rows, and n_prompts n_samples of each row that it "
        "never answers right with its likeliest words"
    )
    is_pairwise: ClassVar[bool] = True

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model and how it is asked, and the fingerprint of both."""
        who, settings = load_generator(context), context.answer_accuracy
        return {
            "model": who.name,
            **{name: str(getattr(settings, name)) for name in ("n_prompts", "n_examples", "n_samples", "by", "seed")},
            "fingerprint": combine_fingerprints(RECIPE, who.fingerprint, repr(settings)),
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) of ANSWER_ACCURACY, NaN with its reason for a row that has no short answer or got no answer.

        Raises:
            InputError: the rows are plain text, or a model or server cannot be asked.
        """
        examples = dataset if context.examples is None else context.examples
        if "text" in (dataset.kind, examples.kind):
            raise InputError("answer_accuracy: rows need a prompt and a response, found plain text")
        self._who = who = load_generator(context)  # kept, so that the features computed after this one share the model
        settings = context.answer_accuracy
        questions = _Questions.of(dataset, examples, settings)
        values = np.full(len(dataset), np.nan, dtype=ANSWER_ACCURACY)
        asked = np.flatnonzero([problem is None for problem in questions.problems])
        values["likeliest"][asked] = _shares(questions, asked, settings.likeliest, who, context)
        unknown = np.flatnonzero(values["likeliest"] == 0)
        values["drawn"][unknown] = _shares(questions, unknown, settings.drawn, who, context)
        missing = missing_series(questions.problems)
        notes = {"rows": len(dataset), "rows_missing": len(missing) - missing.null_count(), "rows_drawn": len(unknown)}
        for note in (*who.notes(), *_sentences(notes)):
            if context.on_progress is not None:
                context.on_progress(Progress(stage=self.name, done=len(values), total=len(values), note=note))
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
    def of(cls, dataset: Dataset, examples: Dataset, settings: AnswerAccuracySettings) -> _Questions:
        groups = _Examples.by_group(examples, settings)
        names = _groups(dataset, settings)
        conversations: list[list[str]] = []
        problems: list[str | None] = []
        pairs = list(zip(dataset.frame["prompt"], dataset.frame["response"], strict=True))
        for (prompt, response), name in zip(pairs, names, strict=True):
            shown = groups[name].for_prompt(prompt) if name in groups else None
            problem = None
            if not _is_short(response, settings):
                problem = f"its response has more than {settings.max_words} words, and only short answers are compared"
            elif shown is None and settings.n_examples:
                problem = f"fewer than {settings.n_examples} other rows with short answers are there as examples"
            problems.append(problem)
            shots = [()] * settings.n_prompts if shown is None else shown
            conversations.append([] if problem is not None else [_conversation(each, prompt) for each in shots])
        return cls(conversations, [plain(response) for _, response in pairs], problems)


@dataclass(frozen=True)
class _Examples:
    """Rows of one group that can be examples: for each prompt all of them, in the order of their hashes."""

    ranked: list[list[tuple[str, str]]]
    n_examples: int

    @classmethod
    def by_group(cls, rows: Dataset, settings: AnswerAccuracySettings) -> dict[str, _Examples]:
        pairs: dict[str, set[tuple[str, str]]] = {}
        for prompt, response, name in zip(
            rows.frame["prompt"], rows.frame["response"], _groups(rows, settings), strict=True
        ):
            if _is_short(response, settings):
                pairs.setdefault(name, set()).add((prompt, response))
        return {
            name: cls(
                [sorted(found, key=lambda pair: _place(pair, number, settings.seed)) for number in _numbers(settings)],
                settings.n_examples,
            )
            for name, found in pairs.items()
        }

    def for_prompt(self, prompt: str) -> list[tuple[tuple[str, str], ...]] | None:
        """Return the examples of each of a row's prompts, or None where there are too few."""
        found = []
        for ranked in self.ranked:
            fitting = (pair for pair in ranked if pair[0] != prompt)
            chosen = tuple(pair for pair, _ in zip(fitting, range(self.n_examples), strict=False))
            if len(chosen) < self.n_examples:
                return None
            found.append(chosen)
        return found


def _numbers(settings: AnswerAccuracySettings) -> range:
    return range(settings.n_prompts)


def _place(pair: tuple[str, str], number: int, seed: int) -> tuple[int, tuple[str, str]]:
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


def _shares(
    questions: _Questions, rows: NDArray[np.int64], decoding: Decoding, who: TextGenerator, context: FeatureContext
) -> NDArray[np.float64]:
    """Return the share of right ones among the answers to each row's prompts, (m,); NaN and a problem for none."""
    kind = "likeliest" if decoding.temperature == 0 else "drawn"
    conversations = [conversation for row in rows for conversation in questions.conversations[row]]
    answers = who.generate(conversations, decoding, stage=f"answer_accuracy: {kind} answers", context=context)
    shares = np.full(len(rows), np.nan)
    supply = iter(answers)
    for place, row in enumerate(rows):
        given = [answer for _ in questions.conversations[row] for answer in next(supply)]
        said = [plain(answer.text) for answer in given if answer.text is not None]
        if any(_is_undecided(answer, questions.answers[row]) for answer in given):
            questions.problems[row] = CUT
        elif said:
            shares[place] = float(np.mean([text == questions.answers[row] for text in said]))
        else:
            questions.problems[row] = next(answer.problem for answer in given if answer.problem is not None)
    return shares


def _is_undecided(answer: Generation, right: str) -> bool:
    """Tell whether an answer was cut before it could be right or wrong."""
    if answer.text is None or not answer.is_cut:
        return False
    text = plain(answer.text.rstrip("\ufffd"))  # half a character at the limit
    return text != right and right.startswith(text)


def _sentences(notes: dict[str, int]) -> list[str]:
    """Return what the user should know of rows without a value."""
    if not notes["rows_missing"]:
        return []
    return [f"answer_accuracy: {notes['rows_missing']:,} of {notes['rows']:,} rows have no value"]
