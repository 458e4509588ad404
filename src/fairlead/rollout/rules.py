"""Judging responses by rules: verifiers, the length penalty and functions of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.config.terms import REWARD_MODEL, Term, parse_term
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Task
from fairlead.generate.engine import Response
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

    def judge(
        self, tasks: Sequence[Task], responses: Sequence[Response], template: ChatTemplate, ranks: Ranks
    ) -> dict[str, Float[Tensor, "B"]]:
        """What each term gives each response, before its weight.

        The first rank judges for all: a function of the user's may draw numbers, and ranks must not disagree.
        """
        found = self._judge(tasks, responses, template) if ranks.rank == 0 else {}
        gathered = ranks.gather_rows([found[term.name].to(ranks.device) for term in self.terms if found])[0]
        return {term.name: values.cpu() for term, values in zip(self.terms, gathered, strict=True)}

    def _judge(
        self, tasks: Sequence[Task], responses: Sequence[Response], template: ChatTemplate
    ) -> dict[str, Float[Tensor, "B"]]:
        samples = [
            Sample(task.prompt, template.decode(response.tokens), task.answer, len(response.tokens))
            for task, response in zip(tasks, responses, strict=True)
        ]
        return {
            term.name: torch.tensor(
                rule_scores(
                    term, samples, pattern=self.answer_pattern, max_tokens=self.max_response_tokens,
                    function=self.functions.get(term.name),
                ),
                dtype=torch.float32,
            )
            for term in self.terms
        }  # fmt: skip


def load_rules(texts: Sequence[str], *, answer_pattern: str, max_response_tokens: int) -> Rules:
    """The named terms, but for the reward model's, with the user's functions. Raises UserError as `load_functions`."""
    terms = tuple(term for term in map(parse_term, texts) if term.name != REWARD_MODEL)
    functions, digests = load_functions(terms)
    return Rules(terms, functions, digests, answer_pattern, max_response_tokens)
