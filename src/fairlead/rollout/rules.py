"""Judging responses by rules: verifiers, the length penalty and functions of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.config.terms import JUDGE, REWARD_MODEL, Term
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Task
from fairlead.generate.requests import Response
from fairlead.rewards.terms import Function, Sample, load_functions, rule_scores
from fairlead.runtime.ranks import Ranks


@dataclass(frozen=True)
class Rules:
    """The terms that need no model, ready to be applied. `digests` are those of the files of the user's functions."""

    terms: tuple[Term, ...]
    functions: dict[str, Function] = field(repr=False)
    digests: dict[str, str]
    answer_pattern: str
    max_response_tokens: int

    def scores(
        self, tasks: Sequence[Task], responses: Sequence[Response], template: ChatTemplate
    ) -> dict[str, list[float]]:
        """What each term gives each response, before its weight; of this process alone."""
        samples = [
            Sample(task.prompt, template.decode(response.tokens), task.answer, len(response.tokens))
            for task, response in zip(tasks, responses, strict=True)
        ]
        return {
            term.name: rule_scores(
                term, samples, pattern=self.answer_pattern, max_tokens=self.max_response_tokens,
                function=self.functions.get(term.name),
            )
            for term in self.terms
        }  # fmt: skip

    def judge(
        self, tasks: Sequence[Task], responses: Sequence[Response], template: ChatTemplate, ranks: Ranks
    ) -> dict[str, Float[Tensor, "B"]]:
        """The same on every rank. The first judges for all: a function of the user's may draw numbers."""
        found = self.scores(tasks, responses, template) if ranks.rank == 0 else {}
        rows = [torch.tensor(values, dtype=torch.float32, device=ranks.device) for values in found.values()]
        gathered = ranks.gather_rows(rows)[0]
        return {term.name: values.cpu() for term, values in zip(self.terms, gathered, strict=True)}


def load_rules(terms: Sequence[Term], *, answer_pattern: str, max_response_tokens: int) -> Rules:
    """Those of the terms that no model judges, with the user's functions. Raises UserError as `load_functions`."""
    terms = tuple(term for term in terms if term.name not in (REWARD_MODEL, JUDGE))
    functions, digests = load_functions(terms)
    return Rules(terms, functions, digests, answer_pattern, max_response_tokens)
