"""What each layout of ranked, scored or labelled responses means: one reader per layout. No torch here."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from fairlead.data.dialogues import alpaca_prompt, conversation, prompt_completion, turns
from fairlead.data.drafts import BadRowError, Draft, LeftOutError
from fairlead.data.fields import (
    dialogue,
    items,
    message,
    number,
    prompt,
    required,
    text,
    texts,
    transcript,
    truth,
    with_system,
)
from fairlead.data.streams import Row
from fairlead.records import Message


def labelled(row: dict[str, Any]) -> Draft:
    """A dialogue whose last answer is called desirable or not (KTO, Ethayarajh et al. 2024)."""
    draft = prompt_completion(row) if row.get("completion") is not None else conversation(row)
    labels = [label for key in ("label", "kto_tag") if (label := truth(row.get(key))) is not None]
    return replace(draft, desirable=labels[0] if labels else None)


def judged(row: dict[str, Any]) -> Draft:
    """Several responses with a label each."""
    responses, labels = texts(row, "responses"), [truth(value) for value in items(row, "desirable")]
    if len(labels) != len(responses) or not labels or None in labels:
        raise BadRowError(f"there are {len(responses)} responses and {len(labels) - labels.count(None)} labels")
    return Draft(prompt(row), responses, labels=tuple(label is True for label in labels))


def alpaca_ranked(row: dict[str, Any]) -> Draft:
    """Alpaca with several outputs, best first."""
    return Draft(alpaca_prompt(row), texts(row, "output"))


def ranked(row: dict[str, Any]) -> Draft:
    """A prompt and its responses, best first."""
    return Draft(prompt(row), texts(row, "ranked"))


def graded(row: dict[str, Any]) -> Draft:
    """A prompt, its responses in any order and their scores."""
    responses = texts(row, "responses")
    grades = tuple(number(value, "a number in `scores`") for value in items(row, "scores"))
    if len(grades) != len(responses) or not grades:
        raise BadRowError(f"there are {len(responses)} responses and {len(grades)} scores")
    return Draft(prompt(row), responses, grades)


def completions(row: dict[str, Any]) -> Draft:
    """UltraFeedback as it was annotated (Cui et al. 2023): the mean of the fine grades, which its own page corrects."""
    answers = [_object(item, "a completion") for item in items(row, "completions")]
    key = (
        "overall_score" if any(answer.get("fine-grained_score") is None for answer in answers) else "fine-grained_score"
    )
    grades = tuple(number(required(answer, key), f"`{key}`") for answer in answers)
    return Draft(with_system(row, (Message("user", text(row, "instruction")),)), _texts_of(answers, "response"), grades)


def ranks(row: dict[str, Any]) -> Draft:
    """Nectar (Zhu et al. 2023): answers with a rank, 1 for the best."""
    answers = [_object(item, "an answer") for item in items(row, "answers")]
    grades = tuple(-number(required(answer, "rank"), "`rank`") for answer in answers)
    return Draft(prompt(row), _texts_of(answers, "answer"), grades)


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRowError(f"{name} should be an object and is a {type(value).__name__}")
    return value


def _texts_of(answers: list[dict[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(text(answer, key) for answer in answers)


def graded_one(row: dict[str, Any]) -> Draft:
    """One response and its score, or HelpSteer's helpfulness."""
    key = "score" if row.get("score") is not None else "helpfulness"
    return Draft(prompt(row), (text(row, "response"),), (number(required(row, key), f"`{key}`"),))


# --- pairs


def conversation_pair(row: dict[str, Any]) -> Draft:
    """A dialogue and two answers to it."""
    return Draft(turns(row), (_answer(row, "chosen"), _answer(row, "rejected")), _pair_grades(row))


def pair(row: dict[str, Any]) -> Draft:
    """A prompt and two answers to it."""
    return Draft(prompt(row), (_answer(row, "chosen"), _answer(row, "rejected")), _pair_grades(row))


def rm_static(row: dict[str, Any]) -> Draft:
    """hh-rlhf, cut at the last "Assistant:"."""
    return Draft(prompt(row), (text(row, "chosen").strip(), text(row, "rejected").strip()))


def hh(row: dict[str, Any]) -> Draft:
    """hh-rlhf (Bai et al. 2022): two whole transcripts."""
    chosen, rejected = (transcript(text(row, key)) for key in ("chosen", "rejected"))
    return _split_common(chosen, rejected)


def dialogue_pair(row: dict[str, Any]) -> Draft:
    """Two whole dialogues as lists of turns."""
    keys = ("chosen", "rejected") if row.get("chosen") is not None else ("chosen_messages", "rejected_messages")
    chosen, rejected = (dialogue(items(row, key)) for key in keys)
    return replace(_split_common(chosen, rejected), grades=_pair_grades(row))


def answers_pair(row: dict[str, Any]) -> Draft:
    """StackLLaMA's pairs: j is the better one."""
    question = Message("user", text(row, "question"))
    return Draft((question,), (text(row, "response_j"), text(row, "response_k")))


def _answer(row: dict[str, Any], key: str) -> str:
    value = required(row, key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    found = message(value)
    if found.role != "assistant":
        raise BadRowError(f"`{key}` should be an answer and is a {found.role} turn")
    return found.content


def _pair_grades(row: dict[str, Any]) -> tuple[float, ...]:
    """The scores of chosen and rejected, where a row has them (UltraFeedback, Cui et al. 2023)."""
    keys = ("score_chosen", "score_rejected")
    if any(row.get(key) is None for key in keys):
        return ()
    better, worse = (number(row[key], f"`{key}`") for key in keys)
    if worse > better:
        raise BadRowError("the rejected response has the higher score")
    return better, worse


def _split_common(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Draft:
    """Two whole dialogues that differ in their last turn alone."""
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[-1].role != "assistant":
            raise BadRowError(f"{name} does not end with an answer")
    if chosen[:-1] != rejected[:-1]:
        raise BadRowError("chosen and rejected have different prompts")
    return Draft(chosen[:-1], (chosen[-1].content, rejected[-1].content))


# --- trees


def tree(row: dict[str, Any]) -> list[Draft]:
    """OpenAssistant's trees (Köpf et al. 2023): at every user turn the replies that people ranked, best first.

    Deleted messages are left out with what hangs on them. Rank 0 is the best.
    """
    drafts = list(_ranked_replies(required(row, "prompt")))
    if not drafts:
        raise LeftOutError("a tree without two ranked replies to one prompt")
    return drafts


def trees(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """OpenAssistant's flat rows as trees; those of one tree stand together, a reply anywhere behind its prompt.

    A tree has the line of its first message.
    """
    name: str | None = None

    def tree_of(numbered: tuple[int, Row]) -> str | None:
        nonlocal name
        row = numbered[1]
        if not isinstance(row, str):  # a row that cannot be read parts no tree
            name = str(row.get("message_tree_id") or row.get("message_id"))
        return name

    for _, tree in groupby(rows, key=tree_of):
        found: list[tuple[int, Row]] = []
        nodes: dict[str, dict[str, Any]] = {}
        for line, row in tree:
            if isinstance(row, str):
                found.append((line, row))
                continue
            node = {**row, "replies": []}
            nodes[str(row.get("message_id"))] = node
            if row.get("parent_id") is None:
                found.append((line, {"prompt": node}))
            elif (parent := nodes.get(str(row["parent_id"]))) is not None:
                parent["replies"].append(node)
            else:
                found.append((line, "the message it replies to is not among the rows of its tree before it"))
        yield from found


def _ranked_replies(root: object) -> Iterator[Draft]:
    waiting: deque[tuple[tuple[Message, ...], Any]] = deque([((), root)])
    while waiting:
        before, node = waiting.popleft()
        said = message(_as_turn(node))
        dialogue_so_far = (*before, said)
        replies = (
            [reply for reply in items(node, "replies") if not _as_turn(reply)["deleted"]] if node.get("replies") else []
        )
        waiting += [(dialogue_so_far, reply) for reply in replies]
        answers = [reply for reply in replies if said.role == "user" and reply.get("rank") is not None]
        if len(answers) > 1:
            answers.sort(key=lambda reply: number(reply["rank"], "`rank`"))
            yield Draft(dialogue_so_far, tuple(text(reply, "text") for reply in answers))


def _as_turn(node: object) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise BadRowError(f"a reply should be an object and is a {type(node).__name__}")
    return {"role": node.get("role"), "content": node.get("text"), "deleted": bool(node.get("deleted"))}
