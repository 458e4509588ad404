import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fairlead.artifacts.manifest import BaseWeights, Manifest, read_manifest, verify, write_manifest
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.card import model_card
from fairlead.evaluate.report import STARTER_NOTE, journey_report, stage_report
from fairlead.evaluate.summary import (
    StageSummary,
    grade_agreement,
    preference_accuracy,
    read_evaluation,
    write_evaluation,
)
from fairlead.evaluate.wording import between, percent, signed

from .journey_fixture import PROMPTS, TUNED, write_journey


class Page(HTMLParser):
    """Tags, attributes and visible text; complains about tags that do not close."""

    VOID = ("meta", "br", "use")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "demo"
    stages = write_journey(run)
    pages = [stage_report(stages[0]), stage_report(stages[1]), stage_report(stages[2], stages[0])]
    pages.append(journey_report(run, stages, title="A <b>journey</b>", notes=[STARTER_NOTE]))
    return stages, [page.read_text(encoding="utf-8") for page in pages]


@pytest.mark.parametrize("index", range(4))
def test_a_page_is_whole_and_asks_for_nothing(journey, index):
    text = journey[1][index]
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    requested = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action", "srcset")]
    assert all(value.startswith("#") or re.fullmatch(r"0\d-\w+/report\.html", value) for value in requested)
    assert "@import" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "undefined" not in page.text
    assert "None" not in page.text


@pytest.mark.parametrize("index", [0, 2, 3])
def test_what_a_model_said_stays_text(journey, index):
    page = Page(journey[1][index])
    assert "script" not in page.tags
    assert "<script>alert('prompt')</script>" in page.text
    for said in (*PROMPTS, *TUNED):
        assert said in page.text


def test_the_title_is_escaped(journey):
    assert "<h1>A &lt;b&gt;journey" in journey[1][3]


def test_before_and_after_stand_side_by_side(journey):
    text = journey[1][2]
    columns = re.findall(r'<p class="who"><b>([^<]+)</b>', text)
    assert columns[:4] == ["SFT", "PPO", "SFT", "PPO"]
    assert "score 1.00" in text


def test_the_stage_page_states_sizes_time_and_memory(journey):
    text = Page(journey[1][2]).text
    for fact in ("512 episodes, 19\u202f044 response tokens", "6 min 32 s", "2.7 GiB", "Median tokens/s", "Apache-2.0"):
        assert fact in text


def test_the_journey_states_what_a_reader_must_know(journey):
    text = Page(journey[1][3]).text
    for fact in (
        STARTER_NOTE,
        "2.93 → 2.21",
        "best length-only rule",
        "dpo_en_demo",
        "12 of 12 claims hold",
        "fairlead chat ",
        "5a" * 32,
        "2 min 11 s",
        "10 min 42 s",
        "330 rows",
    ):
        assert fact in text
    assert [name for name in ("Base", "SFT", "PPO") if f">{name}</th>" in journey[1][3]] == ["Base", "SFT", "PPO"]


def test_equal_folders_give_equal_pages(journey):
    stages, pages = journey
    assert stage_report(stages[0]).read_text(encoding="utf-8") == pages[0]


def test_a_report_leaves_the_artifact_as_it_was(journey):
    for stage in journey[0]:
        verify(stage)


def test_a_claim_that_fails_is_shown_as_failing(tmp_path):
    stages = write_journey(tmp_path / "demo", ppo_gain=-0.2)
    text = journey_report(tmp_path / "demo", stages, title="t").read_text(encoding="utf-8")
    assert "10 of 12 claims hold" in text
    assert text.count("✗ does not hold") == 2


def test_a_stage_with_nothing_but_a_manifest_has_a_page(tmp_path, journey):
    bare = tmp_path / "01-sft"
    bare.mkdir()
    shutil.copy(journey[0][0] / "manifest.json", bare)
    page = Page(stage_report(bare).read_text(encoding="utf-8"))
    assert "2 min 11 s" in page.text
    assert Page(journey_report(tmp_path, [bare], title="t").read_text(encoding="utf-8")).text


def test_a_folder_that_is_no_stage_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        stage_report(tmp_path)
    assert caught.value.exit_code == ExitCode.MISSING_INPUT
    assert str(tmp_path) in str(caught.value)


def changed(folder, **updates):
    """The stage with other fields in its manifest, or another evaluation."""
    if "evaluation" in updates:
        write_evaluation(updates.pop("evaluation"), folder / "evaluation.json")
    write_manifest(folder, read_manifest(folder).model_copy(update=updates))
    return folder


def test_pairs_judged_without_a_reward_model_say_so(tmp_path):
    """DPO's accuracy is that of its log-probabilities, on its own page and on the journey's."""
    stage = write_journey(tmp_path / "demo")[1]
    measured = preference_accuracy("held-out pairs", [1.0] * 9, [0.0] * 9, [3] * 9, [4] * 9, scorer="log-probability")
    evaluation = replace(read_evaluation(stage / "evaluation.json"), stage=StageSummary("dpo", "policy"))
    changed(stage, kind="policy", stage="dpo", evaluation=replace(evaluation, preferences=(measured,)))
    for path in (stage_report(stage), journey_report(tmp_path / "demo", [stage], title="t")):
        text = Page(path.read_text(encoding="utf-8")).text
        assert "Accuracy of DPO" in text
        assert "judged by its log-probability under DPO" in text
        assert "Reward model's accuracy" not in text
        assert "the reward model never trained" not in text
        assert "The first row carries the claim" not in text


def test_what_the_scores_of_a_reward_model_are_worth(journey):
    """Calibration, accuracy by quarter and length bias stand on both pages, for each group of pairs."""
    stages, pages = journey
    for one in read_evaluation(stages[1] / "evaluation.json").preferences:
        found = one.diagnostics
        quarters = " · ".join(f"{100 * group.accuracy:.0f}" for group in found.by_margin)
        for text in (pages[1], pages[3]):
            assert f">{quarters} %</td>" in text
            assert f"<b>{percent(found.calibration_error)}</b>" in text
            assert f"{percent(found.length.by_score)}<small>{percent(found.length.by_label)} by label</small>" in text
    assert "Is it as sure as it is right? held-out pairs" in pages[1]
    assert "calibration error" not in pages[0].lower()


def test_given_scores_are_shown_beside_the_models(tmp_path):
    stage = write_journey(tmp_path / "demo")[1]
    grades = grade_agreement("helpsteer", [0.0, 1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 2.0, 4.0, 4.0], scale=(2.5, 1.0))
    evaluation = replace(read_evaluation(stage / "evaluation.json"), preferences=(), grades=(grades,))
    changed(stage, evaluation=evaluation)
    for path in (stage_report(stage), journey_report(tmp_path / "demo", [stage], title="t")):
        text = Page(path.read_text(encoding="utf-8")).text
        assert "helpsteer5 replies" in text
        assert signed(grades.pearson) in text
        assert between(grades.low, grades.high, signed) in text
        assert f"{grades.mean_squared_error:.2f}" in text


def test_pairs_judged_by_the_reward_model_carry_its_claim(journey):
    text = Page(journey[1][3]).text
    assert "Reward model's accuracy" in text
    assert "124 pairs, judged by the reward model's score" in text
    assert "The first row carries the claim" in text


def test_the_machine_is_that_of_a_stage_that_ran_a_model(tmp_path):
    stages = write_journey(tmp_path / "demo")
    split = tmp_path / "demo" / "00-split"
    split.mkdir()
    write_manifest(split, Manifest(kind="dataset", stage="split", versions={"python": "3"}))
    text = journey_report(tmp_path / "demo", [split, *stages], title="t").read_text(encoding="utf-8")
    assert "Processes: 1, 2 threads each." in text


@pytest.mark.parametrize("has_split", [True, False])
@pytest.mark.parametrize("normalises", [True, False])
def test_held_out_prompts_are_only_claimed_where_the_journey_made_them(tmp_path, has_split, normalises):
    stages = write_journey(tmp_path / "demo")
    for stage in stages:
        changed(stage, facts={"split_digest": "5a" * 32} if has_split else {}, config={"normalise_scores": normalises})
    text = journey_report(tmp_path / "demo", stages, title="t").read_text(encoding="utf-8")
    assert "that no stage saw" not in text
    assert ("held-out prompts that no stage trained on" in text) == has_split
    assert ("the mean and the spread of the reward model's scores" in text) == (has_split and normalises)


def test_rows_left_out_are_told_on_both_pages(tmp_path):
    stages = write_journey(tmp_path / "demo")
    note = "2 of 40 prompts are left out: 2 × <too long>"
    changed(stages[2], evaluation=replace(read_evaluation(stages[2] / "evaluation.json"), notes=(note,)))
    assert note in Page(stage_report(stages[2]).read_text(encoding="utf-8")).text
    journey = journey_report(tmp_path / "demo", stages, title="t", notes=["first"])
    assert f"PPO: {note}" in Page(journey.read_text(encoding="utf-8")).text


def test_a_base_on_this_machine_is_shown_without_its_place(tmp_path):
    stage = changed(write_journey(tmp_path / "demo")[0], base=BaseWeights(name="/home/someone/models/tiny"))
    text = stage_report(stage).read_text(encoding="utf-8")
    assert '<td>Base weights</td><td class="digest">tiny</td>' in text
    assert "/home/someone" not in text


def test_faults_of_the_run_are_told_on_both_pages_and_on_the_card(tmp_path):
    stages = write_journey(tmp_path / "demo")
    row = {"step": 5, "since": 4, "fault": "length_hack", "what": "responses went from 40 to 90 tokens <while>",
           "cause": "the reward pays for length", "fix": "raise kl.coef", "action": "roll_back"}  # fmt: skip
    (stages[2] / "health.jsonl").write_text(json.dumps(row) + "\n")
    said = (
        "Step 5: responses went from 40 to 90 tokens <while>; likely cause: the reward pays for length. It was rolled"
    )
    assert said in Page(stage_report(stages[2]).read_text(encoding="utf-8")).text
    journey = journey_report(tmp_path / "demo", stages, title="t").read_text(encoding="utf-8")
    assert f"PPO: {said}" in Page(journey).text
    assert "the reward pays for length" in model_card(stages[2])
    assert "likely cause" not in Page(stage_report(stages[1]).read_text(encoding="utf-8")).text
