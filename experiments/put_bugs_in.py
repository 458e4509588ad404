"""Put bugs that other projects ship into a copy of the package, and see whether the test named after each turns red.

    python experiments/put_bugs_in.py [WORD]      # only the tests whose FILE::NAME holds WORD

The working tree stays as it is. Exit code 1 if a bug goes unnoticed, or a test of tests/regressions has no bug here.
"""

import gc
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.figure  # noqa: F401 - loaded once, for all children
import peft  # noqa: F401
import pyarrow.parquet  # noqa: F401
import torch
from mutate import ROOT, survives
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM  # noqa: F401

FOLDER = ROOT / "tests" / "regressions"
TEMPERED = "rows, batch, runtime, temperature=temperature)"
COLLATED = '            batch = mini.batch(share, self.roles, "critic").to(device)\n            values ='
PTX = "collate([examples[i] for i in share.rows]).to(self.runtime.device)"

# test: the bugs it is named after, each as (file below src/fairlead, what stands there, what is put in its place)
BUGS = {
    # test_numbers.py
    "colossalchat_adds_the_sequence_score_to_every_token": [
        ("algos/advantages.py", "torch.where(_is_last(response_mask)", "torch.where(response_mask"),
    ],
    "losses_overflow_at_large_gaps": [
        ("algos/reward_loss.py", "torch.logaddexp(torch.zeros_like(difference), difference)",
         "torch.log(1 + torch.exp(difference))"),
        ("algos/reward_loss.py", "-logsigmoid(upcast(chosen) - upcast(rejected) - margin)",
         "-torch.log(torch.sigmoid(upcast(chosen) - upcast(rejected) - margin))"),
        ("algos/preference_loss.py", "-(1.0 - label_smoothing) * logsigmoid(margin)",
         "-(1.0 - label_smoothing) * torch.log(torch.sigmoid(margin))"),
        ("algos/preference_loss.py", "kept * logsigmoid(margin)", "kept * torch.log(torch.sigmoid(margin))"),
        ("algos/preference_loss.py", "-logsigmoid(beta * (upcast(chosen) - upcast(rejected)) - gamma)",
         "-torch.log(torch.sigmoid(beta * (upcast(chosen) - upcast(rejected)) - gamma))"),
    ],
    "colossalchat_averages_the_odds_over_the_batch": [
        ("train/dpo.py", "policy, reference = policy / num_tokens,",
         "num_tokens = num_tokens.float().mean()\n        policy, reference = policy / num_tokens,"),
    ],
    "colossalchat_casts_the_odds_to_bfloat16": [
        ("algos/preference_loss.py", "_log_odds(upcast(chosen)) - _log_odds(upcast(rejected))",
         "_log_odds(chosen.bfloat16()) - _log_odds(rejected.bfloat16())"),
    ],
    "torchtune_inverts_shift_mean": [("algos/masked.py", "if not shift_mean:", "if shift_mean:")],
    "trl_whitens_with_the_unbiased_variance": [
        ("algos/masked.py", "return masked_mean((values - masked_mean(values, mask)).square(), mask)",
         "return masked_sum((values - masked_mean(values, mask)).square(), mask) / (mask.sum() - 1)"),
    ],
    "deepspeed_chat_averages_the_scores_of_all_tokens": [
        ("models/roles.py", "        self._expect_backward(role, result)\n        return result\n\n    def trainable",
         "        if spec.output == 'scores':\n"
         "            every = self.heads[role](hidden.float()).squeeze(-1)\n"
         "            result = torch.stack([one.mean() for one in every.split(list(batch.lengths))])\n"
         "        self._expect_backward(role, result)\n        return result\n\n    def trainable"),
    ],
    "trl_grpo_moves_groups_without_variance_by_their_kl": [
        ("train/grpo.py", "weights = (each * teaches)", "weights = each"),
    ],
    "trl_grpo_steps_on_a_batch_without_any_variance": [
        ("train/grpo.py", "if not teaches.any():", "if False:"),
    ],
    "less_memory_changes_the_loss": [
        ("train/sft.py", "* batch.weights).sum() / count", "* batch.weights).sum() / batch.weights.sum()"),
    ],
    "a_large_vocabulary_blows_the_memory": [
        ("models/roles.py", '{"cpu": 64,', '{"cpu": 64 * 2**20,'),
        ("algos/logprobs.py", "        for start in range(0, len(targets), chunk):",
         "        chunk = len(targets)\n        for start in range(0, len(targets), chunk):"),
    ],
    "kl_turns_negative_without_notice": [
        ("algos/kl.py", "return torch.expm1(-log_ratio) + log_ratio", "return log_ratio"),
    ],
    # test_tokens.py
    "deepspeed_chat_trains_on_prompt_tokens": [
        ("data/chat_template.py", "trained = tuple(any(start <= at < end for start, end in rendered.trained)",
         "trained = tuple(bool(rendered.trained)"),
    ],
    "nothing_teaches_the_model_to_stop": [
        ("data/chat_template.py", "ended = position + (len(self._end_text) if", "ended = position + (0 if"),
        ("data/collate.py", "if example.trained[i] and i > 0]",
         "if example.trained[i] and i > 0 and example.input_ids[i] != 2]"),
    ],
    "openrlhf_ends_truncated_replies_with_the_end_token": [
        ("data/chat_template.py", "return Encoded(tuple(tokens.ids[:max_length]),",
         "cut = max_length is not None and max_length < len(tokens.ids)\n"
         "        ids = [*tokens.ids[: max_length - 1], self.end_token_ids[0]] if cut else tokens.ids\n"
         "        return Encoded(tuple(ids),"),
        ("data/examples.py", "examples.append(Example((prompt_ids + response_ids)[:max_length], trained",
         "ids = (prompt_ids + response_ids)[: max_length - 1] + (template.end_token_ids[0],)\n"
         "        examples.append(Example(ids[: len(trained)], trained"),
    ],
    "openrlhf_tokenises_prompt_and_reply_apart": [
        ("data/chat_template.py", "        if not borders:\n            return tokens\n",
         "        borders = [span.start for span in rendered.spans if span.start]\n"),
    ],
    "control_strings_in_user_text_become_control_tokens": [
        ("data/chat_template.py", "if not injected:", "if injected or not injected:"),
    ],
    "a_padding_token_beyond_the_embedding_crashes_at_step_800": [
        ("models/loading.py", "if highest >= rows:", "if highest > 10**9:"),
    ],
    "a_model_without_an_architecture_fails_with_a_traceback": [
        ("models/loading.py", 'except ValueError as error:\n        raise UserError(\n            "transformers has',
         'except ZeroDivisionError as error:\n        raise UserError(\n            "transformers has'),
    ],
    "masks_are_guessed_from_the_padding_token": [
        ("models/forward.py", "masks = [torch.ones_like(sequence)", "masks = [(sequence != 2).long()"),
        ("models/forward.py", "    return out.last_hidden_state[mask.bool()]",
         "    kept = mask.bool()\n    return out.last_hidden_state.roll(1, 1)[kept]"),
    ],
    "chatllama_mixes_three_batches_in_its_ptx_loss": [
        ("train/ppo.py", "config.ptx_rows, self.runtime.seed + 2, step)", "config.ptx_rows, self.runtime.seed + 2, 0)"),
        ("train/ppo.py", f"batch = {PTX}",
         "other = [Example(examples[i].input_ids, examples[i].trained[::-1]) for i in share.rows]\n"
         "            batch = collate(other).to(self.runtime.device)"),
    ],
    # test_rollouts.py
    "colossalchat_reads_values_at_the_token_itself": [
        ("models/roles.py", 'positions = batch.predictors if spec.output == "values"',
         'positions = batch.targets if spec.output == "values"'),
    ],
    "colossalchat_slices_old_values_from_another_layout": [
        ("rollout/sample.py", 'values=_matrix(per_sequence(roles, "critic", rows, batch, runtime))',
         'values=pad_sequence(per_sequence(roles, "critic", rows, batch, runtime), True, padding_side="left")'),
        ("train/episodes.py", "return matrix[index][self.rollout.response_mask[index]]",
         "return matrix[index].flip(1)[self.rollout.response_mask[index]]"),
    ],
    "colossalchat_draws_the_same_noise_in_every_rollout": [
        ("train/episodes.py", "first = (seed * 1_000_003 + iteration) * 65_536", "first = 41"),
    ],
    "colossalchat_scores_a_padding_token_past_the_end": [
        ("models/roles.py", "else batch.last_tokens", "else (batch.last_tokens + 1).clamp(max=batch.num_tokens - 1)"),
        ("models/forward.py", 'rows, mask = _padded(batch, side="right")',
         'rows, mask = _padded(batch, side="left")\n'
         "    mask = torch.ones_like(mask).cumsum(1) <= mask.sum(1, keepdim=True)"),
    ],
    "deepspeed_chat_rolls_out_greedily": [
        ("rollout/sample.py", "    drawn = engine.generate(\n",
         "    sampling = sampling.model_copy(update={'temperature': 0.0})\n    drawn = engine.generate(\n"),
        ("config/online.py", "if s.temperature == 0 or s.top_k", "if s.top_k"),
    ],
    "deepspeed_chat_repeats_tokens_after_a_step": [
        ("models/kv_cache.py", "self.lengths = self.lengths + 1", "self.lengths = self.lengths.clone()"),
        ("models/kv_cache.py", "keys[rows, :, places] = key_states[:, :, 0]",
         "keys[rows, :, places - 1] = key_states[:, :, 0]"),
    ],
    "trl_measures_ratios_of_a_distribution_it_did_not_sample_from": [
        ("config/online.py", "or s.top_p < 1 ", ""),
        ("config/online.py", "or s.top_k or", "or"),
        ("config/online.py", "or s.repetition_penalty != 1 ", ""),
    ],
    "the_kl_is_measured_at_another_temperature_than_sampled": [
        ("rollout/sample.py", f'old_logprobs=_matrix(per_sequence(roles, "policy", {TEMPERED}',
         'old_logprobs=_matrix(per_sequence(roles, "policy", rows, batch, runtime)'),
        ("rollout/sample.py", f'reference_logprobs=_matrix(per_sequence(roles, "reference", {TEMPERED}',
         'reference_logprobs=_matrix(per_sequence(roles, "reference", rows, batch, runtime)'),
    ],
    "colossalchat_streams_without_the_repetition_penalty": [
        ("generate/engine.py", "        requests = [\n            Request(index, prompt,",
         "        sampling = sampling.model_copy(update={'repetition_penalty': 1.0}) if on_token else sampling\n"
         "        requests = [\n            Request(index, prompt,"),
    ],
    # test_stages.py
    "a_trained_reward_model_cannot_be_loaded_into_rl": [
        ("train/ppo.py", 'require_kind(Path(config.reward_model), ("reward",)',
         'require_kind(Path(config.reward_model), ("reward", "policy")'),
        ("train/rows.py", 'require_kind(source.artifact, ("policy",)',
         'require_kind(source.artifact, ("policy", "reward")'),
    ],
    "all_rewards_are_identical": [("train/reward.py", "if spread < COLLAPSED_SPREAD:", "if spread < 0:")],
    "nobody_says_which_head_was_dropped": [
        ("models/roles.py", 'self.note(f"{name}: a new score layer', '_ = (f"{name}: a new score layer'),
    ],
    "a_model_that_cannot_be_saved_is_found_out_at_the_end": [
        (f"train/{name}.py", "rehearse_save(stage.folder", "(lambda *_: None)(stage.folder")
        for name in ("policy", "reward", "ppo", "grpo")
    ],
    "a_wrong_path_fails_late": [
        ("train/ppo.py", "    reward_source = reward_of(config)\n",
         "    from fairlead.models import build\n"
         "    build.load_causal_lm(source.base.folder, dtype=runtime.dtype, device=runtime.device)\n"
         "    reward_source = reward_of(config)\n"),
    ],
    "the_random_value_head_is_frozen_under_lora": [
        ("models/roles.py", "if role in self.heads:\n            found |=",
         "if role in self.heads and spec.adapter is None:\n            found |="),
    ],
    "cuda_is_hard_coded": [
        ("train/ppo.py", COLLATED, COLLATED.replace(".to(device)", ".to(device)\n            batch.input_ids.cuda()")),
        ("train/sft.py", "shares = micro_batches(", "shares = roles.cuda() or micro_batches("),
    ],
    "deepspeed_chat_loses_lora_and_tied_weights_in_its_save": [
        ("models/save.py", "state = adapters.adapter_state(roles.adapted(spec.backbone), spec.adapter)",
         "state = {k: v for k, v in adapters.adapter_state(roles.adapted(spec.backbone), spec.adapter).items() "
         "if 'lora_B' not in k}"),
        ("models/save.py", "state = roles.causal_lm(role).state_dict()",
         "state = {k: v for k, v in roles.causal_lm(role).state_dict().items() if 'embed' not in k}"),
    ],
    "colossalchat_saves_only_after_the_epoch": [
        ("train/stage.py", "due = step % self.config.checkpoint.every_steps == 0 and", "due = step == num_steps and"),
    ],
    "colossalchat_divides_by_a_save_interval_of_0": [
        ("config/common.py", "every_steps: PositiveInt = 20", "every_steps: int = 20"),
    ],
    "a_killed_job_starts_again_from_nothing": [
        ("train/optimizer.py", 'copy_into(moments[key], tensors[f"{name}/{key}"])', "pass"),
        ("train/sft.py", "            optimizer.load_state(state.tensors)\n", ""),
        ("train/grpo.py", "        self.numbers = dict(numbers)\n", ""),
        ("train/stage.py", "self._journals[name].truncate(sizes[name])", "pass"),
    ],
    "only_one_checkpoint_is_kept": [
        ("config/common.py", "keep: int = Field(default=2, ge=2)", "keep: int = Field(default=2, ge=1)"),
    ],
    "a_result_is_never_evaluated": [
        ("train/dpo.py", "preferences=measure_preferences(", "notes=() and measure_preferences("),
        ("train/sft.py", 'parent_likelihoods=tuple(Likelihood(**measured) for measured in numbers["parent"])',
         "parent_likelihoods=()"),
    ],
}  # fmt: skip


def main(word: str) -> int:
    """Returns how many bugs no test noticed."""
    tests = {
        name: path.name
        for path in sorted(FOLDER.glob("test_*.py"))
        for name in re.findall(r"^def test_(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert tests.keys() == BUGS.keys(), tests.keys() ^ BUGS.keys()
    torch.set_num_threads(1)
    gc.freeze()
    sys.dont_write_bytecode = True
    chosen = [name for name in BUGS if word in f"{tests[name]}::test_{name}"]
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for name in chosen:
            for path, old, new in BUGS[name]:
                file = source / "fairlead" / path
                right = file.read_text(encoding="utf-8")
                assert right.count(old) == 1, f"{path} holds {old!r} {right.count(old)} times"
                file.write_text(right.replace(old, new), encoding="utf-8")
                began = time.monotonic()
                red = not survives([str(FOLDER / tests[name]), "-k", f"test_{name}"], source, cpu_seconds=300)
                file.write_text(right, encoding="utf-8")
                unnoticed += not red
                print(f"{'ok  ' if red else 'MISS'} {name:64} {path} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{sum(len(BUGS[name]) for name in chosen)} bugs in {len(chosen)} tests, {unnoticed} unnoticed")
    return unnoticed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1] if len(sys.argv) > 1 else "") else 0)
