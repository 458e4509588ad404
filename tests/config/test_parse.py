"""Recipes and command lines: every mistake is named with its place and its cure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.chat import ChatConfig
from fairlead.config.document import options, show_value
from fairlead.config.journey import JourneyConfig, SplitConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.parse import did_you_mean, load, parse_mapping, read_recipe
from fairlead.config.replies import RepliesConfig
from fairlead.config.section import Section
from fairlead.config.stages import DpoConfig, EvalConfig, KtoConfig, RewardConfig, SftConfig
from fairlead.errors import ExitCode, UserError


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistake(tmp_path, text, model=SftConfig, overrides=()):
    with pytest.raises(UserError) as caught:
        load(model, recipe(tmp_path, text), list(overrides))
    return caught.value


def wrong_words(*words, model=SftConfig):
    with pytest.raises(UserError) as caught:
        load(model, None, list(words))
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value


def test_recipe_and_command_line_in_layers(tmp_path):
    path = recipe(tmp_path, "optim: {lr: 1e-5, schedule: linear}\ndata:\n  train: [a.jsonl, b.jsonl]\nnum_epochs: 3\n")
    config = load(SftConfig, path, ["optim.lr=3e-4", "--num-epochs", "1"])
    assert (config.optim.lr, config.optim.schedule) == (3e-4, "linear")
    assert (config.data.train, config.num_epochs, config.batch.rows) == (("a.jsonl", "b.jsonl"), 1, 16)


@pytest.mark.parametrize(
    "words", [["--optim.lr", "1e-5"], ["--optim.lr=1e-5"], ["optim.lr=1e-5"], ["optim.lr=1", "optim.lr=1e-5"]]
)
def test_the_ways_to_write_an_option(words):
    assert load(SftConfig, None, words).optim.lr == 1e-5


@pytest.mark.parametrize(
    ("words", "train"),
    [
        (["--data", "a.jsonl"], ("a.jsonl",)),
        (["data.train=a.jsonl,b.jsonl"], ("a.jsonl", "b.jsonl")),
        (["data.train=[a.jsonl, 'b, c.jsonl']"], ("a.jsonl", "b, c.jsonl")),
        (["--data", "a.jsonl", "--data", "b.jsonl"], ("a.jsonl", "b.jsonl")),
    ],
)
def test_lists_on_the_command_line(words, train):
    assert load(SftConfig, None, words).data.train == train


def test_a_list_on_the_command_line_replaces_the_recipes(tmp_path):
    assert load(SftConfig, recipe(tmp_path, "data: {train: [a, b]}"), ["--data", "c"]).data.train == ("c",)


def test_a_single_value_in_a_recipe_stands_for_a_list(tmp_path):
    assert load(SftConfig, recipe(tmp_path, "data: {train: a.jsonl}"), []).data.train == ("a.jsonl",)


def test_short_names_only_where_a_section_has_the_name():
    assert load(SftConfig, None, ["--model", "runs/x"]).model.name == "runs/x"
    assert load(EvalConfig, None, ["--model", "runs/x"]).model == "runs/x"
    assert "data" in wrong_words("--data", "x", model=EvalConfig).what


@pytest.mark.parametrize("text", ["007", "yes", "1e5", "a: b", "x #1", "null"])
def test_text_stays_text(text):
    assert load(SftConfig, None, [f"model.name={text}"]).model.name == text
    assert load(SftConfig, None, ["--output", text]).output == text


def test_yaml_1_2_readings(tmp_path):
    path = recipe(tmp_path, "num_epochs: 012\noptim: {lr: 1e-5}\nmodel: {name: no}\n")
    config = load(SftConfig, path, [])
    assert (config.num_epochs, config.optim.lr, config.model.name) == (12, 1e-5, "no")


def test_byte_order_mark_and_empty_recipe(tmp_path):
    assert load(SftConfig, recipe(tmp_path, b"\xef\xbb\xbfnum_epochs: 4\n"), []).num_epochs == 4
    assert load(SftConfig, recipe(tmp_path, "# nothing\n"), []) == SftConfig()


@pytest.mark.parametrize(
    ("text", "line", "name", "hint"),
    [
        ("optim:\n  learning_rte: 1e-5\n", 2, "optim.learning_rte", "optim.lr"),
        ("num_epochs: 1\noptm:\n  lr: 1\n", 2, "optm", "optim"),
        ("lr: 1\n", 1, "lr", "optim.lr"),
        ("\n\nper_device_train_batch_size: 1\n", 3, "per_device_train_batch_size", "batch.rows"),
        ("data: {train: [a], max_lenght: 3}\n", 1, "data.max_lenght", "data.max_length"),
    ],
)
def test_unknown_keys_get_their_line_and_a_hint(tmp_path, text, line, name, hint):
    error = mistake(tmp_path, text)
    assert error.where.endswith(f"recipe.yaml:{line}")
    assert f"unknown option {name}" in error.what
    assert error.fix == f"did you mean {hint}?"
    assert error.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "name", "got", "want"),
    [
        ("optim:\n  lr: 5\n", "optim.lr", "5", "less than or equal to 1"),
        ("batch:\n  rows: -1\n", "batch.rows", "-1", "greater than 0"),
        ("model:\n  tuning: loar\n", "model.tuning", "loar", "'lora' or 'full'"),
        ("optim:\n  lr: fast\n", "optim.lr", "fast", "number"),
        ("optim:\n  lr: .nan\n", "optim.lr", "nan", "finite number"),
        ("optim:\n  weight_decay: .inf\n", "optim.weight_decay", "inf", "finite number"),
        ("data:\n  train: {a: b}\n", "data.train", "{'a': 'b'}", "list"),
    ],
)
def test_values_out_of_range(tmp_path, text, name, got, want):
    error = mistake(tmp_path, text)
    assert error.where.endswith("recipe.yaml:2")
    assert error.what == f"{name} cannot be used"
    assert error.got == got
    assert want in error.want


def test_the_place_of_an_override_is_the_command_line(tmp_path):
    error = mistake(tmp_path, "optim:\n  lr: 1e-3\n", overrides=["optim.lr=5"])
    assert error.where == "command line"


def test_other_mistakes_are_counted_and_unknown_keys_come_first(tmp_path):
    error = mistake(tmp_path, "optim: {lr: 5}\nepocs: 1\n")
    assert "epocs" in error.what
    assert "1 more" in error.what


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("optim:\n\tlr: 5\n", ":2:1", "\\t"),
        ("optim:\n  lr: 5\n  lr: 4\n", ":3:3", "duplicate key"),
        ("optim:\n  lr: 5\n schedule: linear\n", ":3", ""),
        ("a: !!python/object/apply:os.system [x]\n", ":1", "tag"),
        ("optim: [1\n", ":2", ""),
        ("- 1\n- 2\n", ":1", "mapping"),
        ("just text\n", ":1", "mapping"),
        ("a: &x {b: *x}\n", "recipe.yaml", "YAML"),
        ("[" * 1500, "recipe.yaml", "YAML"),
        ("a: 1\n---\nb: 2\n", ":2", ""),
        (b"num_epochs: 1\nmodel: \xff\n", "recipe.yaml", "UTF-8"),
        ("a: \x00\n", "recipe.yaml", "YAML"),
    ],
)
def test_broken_yaml(tmp_path, text, place, says):
    error = mistake(tmp_path, text)
    assert place in error.where
    assert says in error.what
    assert error.fix
    assert error.exit_code == ExitCode.USAGE


def test_recipe_that_is_not_there(tmp_path):
    with pytest.raises(UserError) as caught:
        read_recipe(tmp_path / "none.yaml")
    assert caught.value.exit_code == ExitCode.MISSING_INPUT
    with pytest.raises(UserError, match="folder"):
        read_recipe(tmp_path)


def test_a_section_with_nothing_in_it_takes_its_defaults_and_null_leaves_it_out(tmp_path):
    journey = load(JourneyConfig, recipe(tmp_path, "sft:\nreward: null\ndpo: {}\nsplit:  # to be written\n"), [])
    assert (journey.sft, journey.reward, journey.dpo, journey.split) == (SftConfig(), None, DpoConfig(), SplitConfig())
    assert load(SftConfig, recipe(tmp_path, "batch:\nmodel:\n  revision:\n"), []) == SftConfig()


def test_overrides_of_stages_of_a_journey(tmp_path):
    path = recipe(tmp_path, "sft: {num_epochs: 3}\nreward: null\n")
    journey = load(JourneyConfig, path, ["sft.optim.lr=1e-5", "reward.loss=log_exp", "--sft.data", "a"])
    assert (journey.sft.num_epochs, journey.sft.optim.lr, journey.reward.loss) == (3, 1e-5, "log_exp")
    assert load(JourneyConfig, path, ["sft=null", "dpo.beta=0.2"]).sft is None
    assert mistake(tmp_path, "sft:\n  optim: {lrr: 1}\n", JourneyConfig).fix == "did you mean sft.optim.lr?"
    assert wrong_words("sft.optim.lrr=1", model=JourneyConfig).fix == "did you mean sft.optim.lr?"


def test_mistakes_on_the_command_line():
    assert wrong_words("optm.lr=1e-5").fix == "did you mean optim.lr?"
    assert wrong_words("optim.lr.x=1").what == "unknown option optim.lr.x"
    assert wrong_words("batch=1").what == "batch cannot be used"
    assert wrong_words("batch=1").want == "a section of options"
    assert "no value" in wrong_words("--optim.lr").what
    assert "no value" in wrong_words("--optim.lr", "--num-epochs", "1").what
    assert "--data a.jsonl" in wrong_words("a.jsonl").fix
    assert wrong_words("num_epochs=[1").got == "[1"


@pytest.mark.parametrize(
    ("written", "want"), [("optim.lr", "number"), ("num_epochs", "integer"), ("model.lora.dropout", "number")]
)
def test_true_is_no_number(tmp_path, written, want):
    for value in ("true", "false"):
        error = wrong_words(f"{written}={value}")
        assert (error.what, error.got, error.want) == (f"{written} cannot be used", value, want)
    assert mistake(tmp_path, "sft:\n  num_epochs: true\n", JourneyConfig).where.endswith("recipe.yaml:2")


JOURNEY = """
split: {sources: [a.jsonl], sft: 8, held_out: 4}
sft: {data: {train: "@split/sft.jsonl"}}
replies: {data: {train: "@split/sft.jsonl"}}
reward: {model: {name: "@sft"}, data: {train: "@replies/train.jsonl"}}
dpo: {data: {train: "@replies/train.jsonl"}}
kto: {data: {train: "@replies/train.jsonl"}}
ppo: {model: {name: "@sft"}, reward_model: "@reward", data: {train: "@split/held_out.jsonl"}}
eval: {prompts: "@replies/train.jsonl", preferences: "@replies/train.jsonl", reward_model: "@reward", parent: "@sft"}
"""


@pytest.mark.parametrize(
    ("word", "says", "fix"),
    [
        ("sft.data.train=@split/sfft.jsonl", "sft.data.train names @split/sfft.jsonl, which is no file of conv", "sft"),
        ("ppo.data.train=@split/ppo.jsonl", "ppo.data.train names @split/ppo.jsonl", "@split/held_out.jsonl"),  # 0 rows
        ("dpo.data.held_out=@replies/held_out.jsonl", "no file of preferences", "@replies/train.jsonl"),  # not made
        ("sft.data.train=@split", "sft.data.train names @split,", "@split/sft.jsonl"),
        ("reward.data.train=@split/sft.jsonl", "reward.data.train names @split/sft.jsonl, which is no file", ""),
        (
            "kto.data.train=@split/sft.jsonl",
            "kto.data.train names @split/sft.jsonl, which is no file of judgements",
            "@replies",
        ),
        ("replies.data.held_out=@replies/train.jsonl", "no earlier stage of this recipe makes", "@sft"),
        ("ppo.ptx_data=@replies/train.jsonl", "ppo.ptx_data names", "@split/sft.jsonl"),
        ("eval.conversations=@replies/train.jsonl", "eval.conversations names", "@split/sft.jsonl"),
        ("eval.reward_model=@sft", "eval.reward_model names @sft, which is no reward model of this recipe", "@reward"),
        ("ppo.reward_model=@sft", "ppo.reward_model names @sft", "@reward"),
        ("ppo.model.name=@reward", "ppo.model.name names @reward, which is no policy model", "@sft, @dpo, @kto"),
        ("dpo.model.name=@split", "dpo.model.name names @split", "@sft"),
        ("replies.model=@split", "replies.model names @split", "@sft"),
    ],
)
def test_what_a_journey_makes_fits_where_it_is_named(tmp_path, word, says, fix):
    load(JourneyConfig, recipe(tmp_path, JOURNEY), [])
    error = mistake(tmp_path, JOURNEY, JourneyConfig, [word])
    assert says in error.what
    assert fix in error.fix
    assert error.where.endswith("recipe.yaml")


@pytest.mark.parametrize("text", ["", "title: x\n", "eval: {prompts: a.jsonl}\n", "sft: null\n"])
def test_a_journey_has_a_stage(tmp_path, text):
    error = mistake(tmp_path, text, JourneyConfig)
    assert "the recipe has no stage" in error.what
    assert "split, sft, replies, reward, dpo, kto, ppo" in error.fix


def test_a_stage_of_a_journey_has_no_folder_of_its_own(tmp_path):
    for stage in ("sft", "eval"):
        assert f"{stage}.output" in mistake(tmp_path, f"dpo: {{}}\n{stage}: {{output: x}}\n", JourneyConfig).what
    assert load(JourneyConfig, recipe(tmp_path, "sft: {output: runs/default}\n"), []).sft.output == "runs/default"


def test_an_override_inside_something_that_is_no_section(tmp_path):
    assert "no section" in mistake(tmp_path, "optim: 3\n", overrides=["optim.lr=1"]).what


def test_one_field_against_another_keeps_the_validators_words():
    error = wrong_words("mini_batch_size=5", model=PpoConfig)
    assert "does not divide" in error.what
    assert error.fix == "choose a divisor"


def test_a_stage_of_a_journey_is_checked_under_its_own_name():
    assert parse_mapping(RewardConfig, {"loss": "log_exp"}, "journey.yaml, stage reward").loss == "log_exp"
    with pytest.raises(UserError) as caught:
        parse_mapping(RewardConfig, {"los": "log_exp"}, "journey.yaml, stage reward")
    assert caught.value.where == "journey.yaml, stage reward"
    assert caught.value.fix == "did you mean loss?"


@pytest.mark.parametrize("model", [SftConfig, RewardConfig, DpoConfig, PpoConfig, EvalConfig])
def test_every_default_can_be_written_on_the_command_line(model):
    words = [f"{option.path}={option.default}" for option in options(model)]
    words = [word.replace('=""', "=") for word in words]
    assert load(model, None, words) == model()


@given(data=st.data(), position=st.integers(0, 30), letter=st.sampled_from("abcxyz_"))
def test_one_wrong_letter_is_always_forgiven_with_the_right_hint(data, position, letter):
    path = data.draw(st.sampled_from([o.path for o in options(SftConfig) if len(o.path.rpartition(".")[2]) > 5]))
    position %= len(path)
    typo = path[:position] + letter + path[position + 1 :]
    if typo.count(".") == path.count(".") and typo not in {o.path for o in options(SftConfig)}:
        assert did_you_mean(SftConfig, typo)


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text("abc"), st.lists, max_leaves=5))
def test_show_value_never_fails(value):
    assert isinstance(show_value(value), str)


SECTIONS_WITH_DEFAULTS = [
    (model, name, key, value)
    for model in (SftConfig, RewardConfig, DpoConfig, KtoConfig, PpoConfig, GrpoConfig, EvalConfig, ChatConfig,
                  RepliesConfig)
    for name, field in model.model_fields.items()
    if isinstance(field.default, Section)
    for key in sorted(field.default.model_fields_set)
    for value in [getattr(field.default, key)]
]  # fmt: skip


@pytest.mark.parametrize(("model", "section", "key", "value"), SECTIONS_WITH_DEFAULTS)
def test_one_key_of_a_section_leaves_the_others_at_this_commands_defaults(model, section, key, value):
    """`--kl.where loss` must not move `kl.coef` from grpo's 0.04 to the 0.05 that a bare section would have."""
    fields = type(getattr(model(), section)).model_fields
    other = next(name for name in fields if name != key and not isinstance(fields[name].default, Section))
    given = fields[other].get_default(call_default_factory=True)
    found = model.model_validate({section: {other: given}})
    assert getattr(getattr(found, section), key) == value
