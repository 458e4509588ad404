"""Models from their sources; those of one base share its weights and a thread."""

from collections.abc import Mapping
from contextlib import nullcontext

from fairlead.config.common import ModelConfig
from fairlead.generate.policy import add_policy
from fairlead.models.build import ready
from fairlead.models.roles import Roles
from fairlead.models.sources import Source
from fairlead.runtime.start import Runtime
from fairlead.serve.engine import EngineModel
from fairlead.serve.scorer import RewardModel
from fairlead.serve.turns import Turns


class LoadedModels:
    """Policies and reward models by their names, at work until `close`."""

    def __init__(self, sources: Mapping[str, Source], runtime: Runtime) -> None:
        self.policies: dict[str, EngineModel] = {}
        self.scorers: dict[str, RewardModel] = {}
        self._turns: list[Turns] = []
        for base in dict.fromkeys(source.base.digest for source in sources.values()):
            self._load({name: source for name, source in sources.items() if source.base.digest == base}, runtime)

    def close(self) -> None:
        """End their threads after a turn."""
        for turns in self._turns:
            turns.close()

    def _load(self, sources: Mapping[str, Source], runtime: Runtime) -> None:
        """Models of one base."""
        roles, turns, members, weights = Roles(), Turns(), [], nullcontext()
        for number, (name, source) in enumerate(sources.items()):
            role = f"model{number}"
            if source.kind == "reward":
                member = self.scorers[name] = RewardModel(name, roles, role, source, runtime, turns.wake)
            else:
                policy = add_policy(roles, role, source, runtime)
                member = self.policies[name] = EngineModel(name, policy, turns.wake)
                weights = policy.engine.weights()  # of the whole base: those of one policy serve all
            members.append(member.turn)
        ready(roles, ModelConfig(), runtime)
        turns.start(members, weights, name=", ".join(sources))
        self._turns.append(turns)
