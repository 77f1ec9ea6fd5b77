"""Seeds: rows that are grown from, and the models that are asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thresher.checks import create_check
from thresher.checks.automatic import Automatic, choose_check
from thresher.checks.contract import Check
from thresher.features.answers.prompts import PromptRows, plain
from thresher.growth.candidate import CUT, NO_ANSWER, WRONG, Candidate
from thresher.growth.settings import JUDGE, GrowSettings

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.models.generation.decoding import Decoding
    from thresher.models.generation.generator import Generation, TextGenerator
    from thresher.numeric.arrays import Float32, Int64

AT_LEAST_AS_GOOD = 0.5  # a judge's probability that an answer is better than the row's


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A model that is asked, and how many answers it was asked for, stored ones included.

    Attributes:
        generator: the model.
        context: it runs in.
        calls: by stage.
    """

    generator: TextGenerator
    context: FeatureContext
    calls: dict[str, int] = field(default_factory=dict)

    def ask(self, conversations: Sequence[str], decoding: Decoding, *, stage: str) -> list[list[Generation]]:
        """Return `decoding.n_samples` answers of each conversation."""
        if not conversations:
            return []
        self.calls[stage] = self.calls.get(stage, 0) + len(conversations) * decoding.n_samples
        return self.generator.generate(conversations, decoding, stage=f"grow: {stage}", context=self.context)


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Rows that are grown from.

    Attributes:
        pool: all rows.
        at: (m,) positions of the seeds.
        rows: what is asked and answered in each, (m,).
        settings: of the call.
        model: that the rows are for.
        writer: that writes; the model itself where there is no teacher.
    """

    pool: Dataset
    at: Int64
    rows: PromptRows
    settings: GrowSettings
    model: Speaker
    writer: Speaker

    @property
    def check(self) -> Check:
        """How answers are compared, also where a judge decides: then by their form."""
        return create_check("auto" if self.settings.check == JUDGE else self.settings.check)

    def embed(self, texts: Sequence[str]) -> Float32:
        """Return the unit vectors of p texts, (p, d)."""
        from thresher.features.embedding import embed_texts

        return embed_texts(texts, self.writer.context, stage="grow: embeddings")

    def candidate(self, number: int, *, prompt: str | None = None, response: str | None = None) -> Candidate:
        """Return a candidate of the seed of that number."""
        return Candidate(seed=int(self.at[number]), prompt=prompt, response=response)

    def judge_answers(self, answers: Sequence[tuple[int, Generation]]) -> list[Candidate]:
        """Return answers of seeds as candidates, refused where they are cut, missing or wrong.

        Args:
            answers: number of a seed, and what was answered to it.
        """
        candidates = [self.candidate(number, response=answer.text) for number, answer in answers]
        is_right = self.are_right([(number, answer.text or "") for number, answer in answers])
        for place, (number, answer) in enumerate(answers):
            if not answer.text:
                why = answer.problem or "the answer is empty"
                candidates[place] = candidates[place].refuse(NO_ANSWER, why)
            elif not is_right[place]:
                candidates[place] = (
                    candidates[place].refuse(CUT, "the answer ended at max_new_tokens before it was right")
                    if answer.is_cut
                    else candidates[place].refuse(WRONG, self._describe_wrong(number, answer.text))
                )
            elif answer.is_cut:
                candidates[place] = candidates[place].refuse(CUT, "the answer ended at max_new_tokens")
        return candidates

    def _describe_wrong(self, number: int, text: str) -> str:
        if self.settings.check == JUDGE:
            return "the judge finds the row's answer better"
        reference = self.rows.responses[number]
        check = choose_check(reference) if isinstance(self.check, Automatic) else self.check
        said, expected = check.read(text), check.read(reference)
        shown = "nothing" if said is None else f"'{said[:80]}'"
        return f"the check '{self.settings.check}' reads {shown}, expected '{(expected or '')[:80]}'"

    def are_right(self, answers: Sequence[tuple[int, str]]) -> list[bool]:
        """Tell which texts say what the responses of their seeds say."""
        if self.settings.check != JUDGE:
            check = self.check
            return [check.is_right(text, self.rows.responses[number]) for number, text in answers]
        return self._ask_judge(answers)

    def _ask_judge(self, answers: Sequence[tuple[int, str]]) -> list[bool]:
        """Ask the model in both orders; equal texts are right, and empty ones are wrong."""
        from thresher.curation.correction.judge import ask_judge

        is_right = [plain(text) == plain(self.rows.responses[number]) for number, text in answers]
        asked = [place for place, (_, text) in enumerate(answers) if text and not is_right[place]]
        triples = [
            (self.rows.prompts[answers[place][0]], self.rows.responses[answers[place][0]], answers[place][1])
            for place in asked
        ]
        shown, problems = ask_judge(triples, self.model.generator, self.model.context, stage="grow: verdicts")
        for place, pair, problem in zip(asked, shown, problems, strict=True):
            is_right[place] = problem is None and float(pair.mean()) >= AT_LEAST_AS_GOOD
        return is_right
