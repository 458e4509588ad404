"""What the trainers write, loaded by transformers and PEFT: equal logits and scores. One SFT and one chat step each."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from fairlead.artifacts.manifest import read_manifest
from fairlead.config.common import SamplingConfig
from fairlead.config.stages import RewardConfig, SftConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.starter import STARTER_MODELS
from fairlead.errors import UserError
from fairlead.generate.chat import answer
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen
from fairlead.models.export import export
from fairlead.models.kv_cache import PaddedCache, SlotCache
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Message
from fairlead.runtime.environment import cache_folder
from fairlead.train.reward import train_reward
from fairlead.train.sft import train_sft
from model_setting import TOLERANCE, packed, rows_of, runtime_of
from tiny import FAMILIES, write_conversations, write_preferences

Tiny = Callable[[str], Path]
ROWS = rows_of([7, 33, 1, 12])
STARTER = next(iter(STARTER_MODELS))
SCORERS = ("llama", "llama-untied", "gpt2", "opt", "bloom")


def options(folder: Path, model: str | Path, rows: Path, tuning: str) -> dict:
    return {
        "output": str(folder), "max_steps": 2, "model": {"name": str(model), "tuning": tuning, "lora": {"rank": 4}},
        "data": {"train": [str(rows)], "held_out_rows": 2}, "batch": {"rows": 4}, "optim": {"lr": 0.002},
        "runtime": {"device": "cpu", "dtype": "float32", "num_threads": 1},
    }  # fmt: skip


def sft(folder: Path, model: str | Path, tuning: str) -> Path:
    rows = write_conversations(folder / "rows.jsonl", 12)
    return train_sft(SftConfig.model_validate(options(folder / tuning, model, rows, tuning)))


def reward(folder: Path, model: str | Path, tuning: str) -> Path:
    rows = write_preferences(folder / "pairs.jsonl", 12)
    return train_reward(RewardConfig.model_validate(options(folder / tuning, model, rows, tuning)))


def judge(artifact: Path, output: str) -> Roles:
    roles = Roles()
    add_frozen(roles, "judge", resolve(str(artifact)), output, runtime_of())
    return roles


@torch.no_grad()
def last_logits(artifact: Path) -> Tensor:
    """Our logits of the token after each row."""
    roles = judge(artifact, "logprobs")
    (is_packed,) = roles.packed.values()
    cache = SlotCache(len(ROWS), torch.device("cpu")) if is_packed else PaddedCache()
    if is_packed:
        cache.enter(tuple(map(len, ROWS)), tuple(range(len(ROWS))))
    return roles(packed(ROWS), "judge", cache=cache)


@torch.no_grad()
def plain_logits(model: PreTrainedModel | PeftModel) -> Tensor:
    return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in ROWS])


def whole(folder: str | Path, kind: type = AutoModelForCausalLM, **kwargs: object) -> PreTrainedModel:
    """Every weight finds its place; a scorer made from a base (`kwargs`) has no head yet and drops the old one."""
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **kwargs)
    assert set(report["unexpected_keys"]) <= ({"lm_head.weight"} if kwargs else set()), report
    assert not report["mismatched_keys"], report
    assert set(report["missing_keys"]) <= ({"score.weight"} if kwargs else set()), report
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_sft_and_one_chat_step(tiny: Tiny, tmp_path: Path, family: str, capsys: pytest.CaptureFixture) -> None:
    artifact = sft(tmp_path, tiny(family), "lora")
    assert ("padded" in capsys.readouterr().err) == (family == "bloom")
    adapted = PeftModel.from_pretrained(whole(tiny(family)), str(artifact / "model")).eval()
    found = last_logits(artifact)
    torch.testing.assert_close(found, plain_logits(adapted), **TOLERANCE)
    assert (found - plain_logits(whole(tiny(family)))).abs().max() > 1e-3, "the adapter should say something"

    roles, runtime = judge(artifact, "logprobs"), runtime_of()
    template = ChatTemplate(AutoTokenizer.from_pretrained(artifact / "model"))
    dialogue = (Message("user", "hello"),)
    engine = Engine(roles, "judge", template.end_token_ids, runtime, decode=template.decode)
    text = answer(engine, template, dialogue, SamplingConfig(temperature=0.0, max_new_tokens=8), seed=0)
    prompt = torch.tensor([template.encode_prompt(dialogue)])
    out = adapted.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=8, pad_token_id=0,
        eos_token_id=list(template.end_token_ids),
    )  # fmt: skip
    assert text == template.decode(out[0, prompt.shape[1] :].tolist())
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("family", ["llama", "llama-untied", "gpt2", "opt", "bloom"])
def test_full_fine_tuning_is_a_plain_folder(tiny: Tiny, tmp_path: Path, family: str) -> None:
    artifact = sft(tmp_path, tiny(family), "full")
    found = last_logits(artifact)
    torch.testing.assert_close(found, plain_logits(whole(artifact / "model")), **TOLERANCE)
    assert (found - plain_logits(whole(tiny(family)))).abs().max() > 1e-3


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("family", SCORERS)
def test_a_reward_model_is_a_sequence_classifier(tiny: Tiny, tmp_path: Path, family: str, tuning: str) -> None:
    artifact = reward(tmp_path, tiny(family), tuning)
    assert_same_scores(artifact, tiny(family), tuning)


@torch.no_grad()
def assert_same_scores(artifact: Path, base: Path, tuning: str) -> None:
    pad = read_manifest(artifact).facts["pad_token_id"]
    if tuning == "lora":
        classifier = whole(base, AutoModelForSequenceClassification, num_labels=1, pad_token_id=pad)
        classifier = PeftModel.from_pretrained(classifier, str(artifact / "model")).eval()
    else:
        classifier = whole(artifact / "model", AutoModelForSequenceClassification)
        assert (classifier.config.num_labels, classifier.config.pad_token_id) == (1, pad)
    rows = [tuple(max(i, 3) for i in row) for row in ROWS]  # without the padding token
    ours = judge(artifact, "scores")(packed(rows), "judge")
    alone = torch.cat([classifier(torch.tensor([row])).logits[0] for row in rows])
    torch.testing.assert_close(ours, alone, **TOLERANCE)
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
    together = classifier(padded, attention_mask=mask.long()).logits[:, 0]
    torch.testing.assert_close(ours, together, **TOLERANCE)
    assert ours.std() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_folder_is_a_plain_model(tiny: Tiny, tmp_path: Path, family: str) -> None:
    artifact = sft(tmp_path, tiny(family), "lora")
    difference = export(artifact, tmp_path / "merged")
    assert difference < 1e-5
    torch.testing.assert_close(plain_logits(whole(tmp_path / "merged")), last_logits(artifact), **TOLERANCE)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    with pytest.raises(UserError, match="there already"):
        export(artifact, tmp_path / "merged")


def test_a_merge_that_goes_wrong_leaves_no_folder(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = sft(tmp_path, tiny("llama"), "lora")
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, **_: self.unload(), raising=False)
    with pytest.raises(UserError, match="does not say what the adapter says"):
        export(artifact, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
@pytest.mark.real
def test_the_starter_model_loads_elsewhere(tmp_path: Path) -> None:
    """SmolLM2-135M in float32: the SFT adapter, its export and a reward model on top of it."""
    if not (cache_folder() / "models" / STARTER).is_dir():
        pytest.skip("the starter model is not in the cache")
    base = resolve(STARTER).base.folder
    policy = sft(tmp_path, STARTER, "lora")
    found = last_logits(policy)
    adapted = plain_logits(PeftModel.from_pretrained(whole(base), str(policy / "model")).eval())
    torch.testing.assert_close(found, adapted, rtol=1e-4, atol=2e-3)  # 30 layers, logits up to 30
    assert (found - plain_logits(whole(base))).abs().max() > 0.1
    assert export(policy, tmp_path / "merged") < 0.03  # bf16 keeps 8 bits; measured 0.006
    assert_same_scores(reward(tmp_path, policy, "lora"), base, "lora")
