"""AdamW on fp32 master weights, with exact accumulation over micro-batches and ranks."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fairlead.algos.schedules import learning_rate
from fairlead.config.common import OptimConfig
from fairlead.errors import ExitCode, UserError
from fairlead.runtime.ranks import copy_into, full
from fairlead.runtime.start import Runtime


class NonFiniteError(UserError):
    """A loss, gradient or metric that is no finite number; raised before it changes a weight."""


class Optimizer:
    """Owns the master weights of one role. `collect` after every backward, `step` once per optimizer step.

    A float32 parameter is its own master. For a bfloat16 parameter the master is a float32 copy: gradients are summed
    in float32 and the rounded master is written back after the step.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimConfig, runtime: Runtime, *, num_steps: int,
        lr: float | None = None,
    ) -> None:  # fmt: skip
        self._parameters = dict(parameters)
        self._masters = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for name, p in parameters.items()
        }
        self._config = config
        self._runtime = runtime
        self._num_steps = num_steps
        self._peak = lr or config.lr
        self._adamw = torch.optim.AdamW(
            list(self._masters.values()), lr=self._peak, betas=(config.beta1, config.beta2), eps=config.eps,
            weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip

    @property
    def masters(self) -> dict[str, nn.Parameter]:
        """The fp32 weights by the names of the parameters."""
        return dict(self._masters)

    def collect(self) -> None:
        """Add the gradients of the last backward to the masters' float32 sums."""
        for name, parameter in self._parameters.items():
            master = self._masters[name]
            if master is parameter or parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def step(self, step: int) -> dict[str, float]:
        """Sum over ranks, clip, update; returns the rate and the gradient norm before clipping.

        Raises NonFiniteError before anything changes when the norm is not finite.
        """
        norm = self._reduced_norm()
        if not math.isfinite(norm):
            raise NonFiniteError(
                f"the gradient is not finite at step {step}; the weights are untouched", got=f"norm {norm}",
                fix="lower optim.lr, or look at the rows of this step; the last checkpoint is intact",
                exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        limit = self._config.max_grad_norm
        if limit and norm > limit:
            for master in self._masters.values():
                _gradient(master).mul_(limit / norm)
        rate = learning_rate(
            step, peak=self._peak, schedule=self._config.schedule, warmup_steps=self._config.warmup_steps,
            num_steps=self._num_steps,
        )  # fmt: skip
        for group in self._adamw.param_groups:
            group["lr"], group["eps"] = rate, self._eps()
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self._publish()
        return {"lr": rate, "grad_norm": norm}

    def _eps(self) -> float:
        """TensorFlow's Adam adds eps to the uncorrected root: the corrected one sees eps / sqrt(1 - beta2^t)."""
        if self._config.eps_placement == "torch":
            return self._config.eps
        done = max((int(state["step"]) for state in self._adamw.state.values()), default=0)
        return self._config.eps / math.sqrt(1.0 - self._config.beta2 ** (done + 1))

    def forget(self) -> None:
        """Drop what was collected, without a step: the weights and moments stay as they are."""
        for parameter in (*self._parameters.values(), *self._masters.values()):
            parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The accumulated gradients by parameter, whole, before `step`; for tests and probes."""
        return {name: full(_gradient(master)).detach().clone() for name, master in self._masters.items()}

    def _reduced_norm(self) -> float:
        gradients = [_gradient(master) for master in self._masters.values()]
        if not self._runtime.sharded:  # FSDP2 has reduced them already
            self._runtime.ranks.sum_gradients(gradients)
        return float(full(torch.nn.utils.get_total_norm(gradients, foreach=False)))

    @torch.no_grad()
    def _publish(self) -> None:
        for name, parameter in self._parameters.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, whole, on the CPU; under sharding every rank must call."""
        tensors: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            tensors[f"{name}/master"] = full(master.detach()).cpu()
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{name}/{key}"] = full(value).cpu()
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, master in self._masters.items():
            copy_into(master, tensors[f"{name}/master"])
            if f"{name}/step" not in tensors:
                continue
            moments = {"step": tensors[f"{name}/step"].to(master.device, copy=True)}
            for key in ("exp_avg", "exp_avg_sq"):
                moments[key] = torch.zeros_like(master)
                copy_into(moments[key], tensors[f"{name}/{key}"])
            self._adamw.state[master] = moments
        self._publish()


def _gradient(master: Tensor) -> Tensor:
    """What was accumulated; zeros for a parameter that no loss reached."""
    if master.grad is None:
        master.grad = torch.zeros_like(master)
    return master.grad
