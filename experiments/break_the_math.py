"""Break a sign, a mask or a denominator of `algos/`, one at a time, and see whether its tests turn red.

    python experiments/break_the_math.py

The working tree stays as it is: every break is made in a copy of `src`. Exit code 1 if any break goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BREAKS = {  # file in algos/: (what stands there, what is put in its place)
    "masked.py": [
        ("masked_fill(~mask, 0.0).sum()", "sum()"),
        ("masked_sum(values, mask) / mask.sum()", "masked_sum(values, mask) / mask.numel()"),
        ("(values - mean) * torch.rsqrt", "(values + mean) * torch.rsqrt"),
        ("if not shift_mean:", "if shift_mean:"),
    ],
    "logprobs.py": [
        ("chosen - totals[part]", "chosen + totals[part]"),
        ("mul_(-of_softmax)", "mul_(of_softmax)"),
        ("return -(distribution.exp() * finite)", "return (distribution.exp() * finite)"),
        ("upcast(logits) / temperature, dim=-1).gather", "upcast(logits) * temperature, dim=-1).gather"),
    ],
    "kl.py": [
        ("upcast(logprobs) - upcast(reference_logprobs)", "upcast(reference_logprobs) - upcast(logprobs)"),
        ("torch.expm1(-log_ratio) + log_ratio", "torch.expm1(log_ratio) - log_ratio"),
        ("(measured_kl - target) / target", "(target - measured_kl) / target"),
    ],
    "advantages.py": [
        ("upcast(scores)[:, None] - penalty, -penalty", "upcast(scores)[:, None] + penalty, penalty"),
        ("torch.where(_is_last(response_mask)", "torch.where(response_mask"),
        ("rewards[:, t] + gamma * next_value - values[:, t]", "rewards[:, t] - gamma * next_value + values[:, t]"),
        ("advantages, advantages + values", "advantages, advantages - values"),
        ("values = upcast(values).masked_fill(~response_mask, 0.0)", "values = upcast(values)"),
    ],
    "policy_loss.py": [
        ("torch.maximum(-advantages * ratio", "torch.minimum(-advantages * ratio"),
        ("torch.maximum(-advantages * ratio, -advantages", "torch.maximum(advantages * ratio, advantages"),
        ("upcast(logprobs) - upcast(old_logprobs)", "upcast(old_logprobs) - upcast(logprobs)"),
        ("(ratio > 1.0 + clip_eps_high) & (advantages > 0)", "(ratio > 1.0 + clip_eps_high) & (advantages < 0)"),
    ],
    "value_loss.py": [
        ("torch.maximum((values - returns)", "torch.minimum((values - returns)"),
        ("old_values + (values - old_values)", "old_values - (values - old_values)"),
    ],
    "reward_loss.py": [
        ("logsigmoid(upcast(chosen) - upcast(rejected) - margin)", "logsigmoid(upcast(rejected) - upcast(chosen))"),
        ("difference = upcast(rejected) - upcast(chosen)", "difference = upcast(chosen) - upcast(rejected)"),
    ],
    "preference_loss.py": [
        ("margin = chosen_reward - rejected_reward", "margin = rejected_reward - chosen_reward"),
        ("label_smoothing * logsigmoid(-margin)", "label_smoothing * logsigmoid(margin)"),
        ("(upcast(policy_rejected) - upcast", "(upcast(policy_rejected) + upcast"),
    ],
    "sft_loss.py": [("return -upcast(logprobs)", "return upcast(logprobs)")],
    "intervals.py": [("centre - half, 1.0", "centre + half, 1.0"), ("[0.5 - confidence / 2", "[0.5 + confidence / 2")],
    "schedules.py": [("peak * (1.0 - progress)", "peak * (1.0 + progress)")],
}  # fmt: skip


def main() -> int:
    """Returns how many breaks no test noticed."""
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source)
        for name, breaks in BREAKS.items():
            file = source / "fairlead" / "algos" / name
            right = file.read_text(encoding="utf-8")
            for old, new in [("", ""), *breaks]:  # first unbroken: the tests must be green by themselves
                assert old in right, f"{name} holds no {old!r} any more"
                file.write_text(right.replace(old, new, 1) if old else right, encoding="utf-8")
                red = not green(name, source)
                unnoticed += red == (not old)
                verdict = "ok  " if red == bool(old) else "MISS"
                print(verdict, name, f"{old}  ->  {new}" if old else "as it is", flush=True)
            file.write_text(right, encoding="utf-8")
    print(f"{sum(map(len, BREAKS.values()))} breaks, {unnoticed} unnoticed")
    return unnoticed


def green(name: str, source: Path) -> bool:
    """Whether the tests of this file pass with the package in `source`."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", f"tests/algos/test_{name}"]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}  # noqa: TID251
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
