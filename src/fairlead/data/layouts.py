"""The shapes that rows come in, told apart by their keys. No torch here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fairlead.data import dialogues, documents, rankings, stack_exchange
from fairlead.data.drafts import Draft
from fairlead.data.fields import truth
from fairlead.data.streams import Row

Kind = Literal["conversations", "preferences", "prompts", "labelled answers", "documents"]


@dataclass(frozen=True, slots=True)
class Layout:
    """One shape of rows: its name, what it holds, how it looks, how to recognise it and how to read it.

    `draft` gives one draft, or several where a row holds several records. `gather`, where there is one, makes the rows
    that `draft` reads from those of the file.
    """

    name: str
    kind: Kind
    looks_like: str
    matches: Callable[[dict[str, Any]], bool]
    draft: Callable[[dict[str, Any]], Draft | list[Draft]]
    gather: Callable[[Iterator[tuple[int, Row]]], Iterator[tuple[int, Row]]] | None = None

    def drafts(self, row: dict[str, Any]) -> Sequence[Draft]:
        """All drafts of a row, in order. Raises BadRowError."""
        found = self.draft(row)
        return found if isinstance(found, list) else [found]


def detect(row: dict[str, Any]) -> Layout | None:
    """The layout of a row by its keys and the types of its values, or None."""
    return next((layout for layout in LAYOUTS if layout.matches(row)), None)


# --- telling them apart


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(row.get(key) is not None for key in keys)


def _is_list_of(value: object, *keys: str) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and value[0].keys() >= set(keys)


def _is_list_of_turns(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(turn, dict) for turn in value)


def _is_pair_of_texts(row: dict[str, Any]) -> bool:
    return isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)


def _is_conversation_pair(row: dict[str, Any]) -> bool:
    return _has("chosen", "rejected")(row) and (_has("conversations")(row) or _has("messages")(row))


def _is_dialogue_pair(row: dict[str, Any]) -> bool:
    return _has("chosen_messages", "rejected_messages")(row) or (
        _is_list_of_turns(row.get("chosen")) and _is_list_of_turns(row.get("rejected"))
    )


def _is_labelled(row: dict[str, Any]) -> bool:
    """Rows for KTO: learning from them as if every answer were good would teach the bad ones."""
    dialogue = any(_has(*keys)(row) for keys in (("messages",), ("conversations",), _COMPLETION))
    return dialogue and any(truth(row.get(key)) is not None for key in ("label", "kto_tag"))


def _is_graded_one(row: dict[str, Any]) -> bool:
    return _has("prompt", "response")(row) and any(row.get(key) is not None for key in ("score", "helpfulness"))


def _is_alpaca_ranked(row: dict[str, Any]) -> bool:
    return _has("instruction")(row) and isinstance(row.get("output"), list)


def _is_belle_dialogue(row: dict[str, Any]) -> bool:
    instruction = row.get("instruction")
    is_transcript = isinstance(instruction, str) and instruction.startswith("Human:")
    return is_transcript and instruction.rstrip().endswith("Assistant:") and _has("output")(row)


def _is_question_answer(row: dict[str, Any]) -> bool:
    """These two keys alone: with others beside them a question has choices, or a passage, that must not be lost."""
    return row.keys() == {"question", "answer"}


def _is_tree(row: dict[str, Any]) -> bool:
    return isinstance(row.get("prompt"), dict) and "replies" in row["prompt"]


def _is_tree_row(row: dict[str, Any]) -> bool:
    return "parent_id" in row and _has("message_id", "role", "text")(row)


def _is_completions(row: dict[str, Any]) -> bool:
    return _has("instruction")(row) and _is_list_of(row.get("completions"), "response")


def _is_ranks(row: dict[str, Any]) -> bool:
    return _has("prompt")(row) and _is_list_of(row.get("answers"), "answer", "rank")


def _is_list_of_texts(row: dict[str, Any]) -> bool:
    data = row.get("data")
    return isinstance(data, list) and len(data) > 1 and all(isinstance(text, str) for text in data)


def _is_firefly(row: dict[str, Any]) -> bool:
    return _is_list_of(row.get("conversation"), "human", "assistant")


def _is_sharegpt(row: dict[str, Any]) -> bool:
    return row.get("conversations") is not None or _is_list_of(row.get("conversation"), "role")


def _is_prompt(row: dict[str, Any]) -> bool:
    return any(row.get(key) is not None for key in ("prompt", "instruction", "user_prompt"))


def _is_chapters(row: dict[str, Any]) -> bool:
    paragraphs = row.get("paragraphs")
    is_text = isinstance(paragraphs, list) and bool(paragraphs) and isinstance(paragraphs[0], str)
    return is_text or (_has("title")(row) and _is_list_of(row.get("content"), "content"))


def _is_document(row: dict[str, Any]) -> bool:
    return isinstance(row.get("text"), str) or _has("url", "not_a_page")(row)


_PAIR = ("prompt", "chosen", "rejected")
_ANSWERS = ("question", "response_j", "response_k")
_COMPLETION = ("prompt", "completion")
_KIND_INPUT_TARGET = ("kind", "input", "target")
_POST = ("Id", "PostTypeId", "Body")

LAYOUTS = (
    Layout("labelled", "labelled answers", "a dialogue with label true or false", _is_labelled, rankings.labelled),
    Layout(
        "judged", "labelled answers", "prompt, responses, desirable", _has("prompt", "responses", "desirable"),
        rankings.judged,
    ),
    Layout("openassistant", "preferences", "prompt with replies in a tree", _is_tree, rankings.tree),
    Layout(
        "openassistant-rows", "preferences", "message_id, parent_id, role, text", _is_tree_row, rankings.tree,
        rankings.trees,
    ),
    Layout("messages-pair", "preferences", "chosen and rejected dialogues", _is_dialogue_pair, rankings.dialogue_pair),
    Layout(
        "sharegpt-pair", "preferences", "conversations, chosen, rejected", _is_conversation_pair,
        rankings.conversation_pair,
    ),
    Layout(
        "rm-static", "preferences", "prompt, response, chosen, rejected", _has("response", *_PAIR), rankings.rm_static
    ),
    Layout("prompt-pair", "preferences", "prompt, chosen, rejected", _has(*_PAIR), rankings.pair),
    Layout("hh-rlhf", "preferences", "chosen and rejected transcripts", _is_pair_of_texts, rankings.hh),
    Layout(
        "graded", "preferences", "prompt, responses, scores", _has("prompt", "responses", "scores"), rankings.graded
    ),
    Layout(
        "ultrafeedback", "preferences", "instruction, completions with scores", _is_completions, rankings.completions
    ),
    Layout("nectar", "preferences", "prompt, answers with ranks", _is_ranks, rankings.ranks),
    Layout("ranked", "preferences", "prompt, ranked", _has("prompt", "ranked"), rankings.ranked),
    Layout(
        "graded-response", "preferences", "prompt, response, score (or helpfulness)", _is_graded_one,
        rankings.graded_one,
    ),
    Layout("answers-pair", "preferences", "question, response_j, response_k", _has(*_ANSWERS), rankings.answers_pair),
    Layout(
        "stack-exchange", "preferences", "Id, PostTypeId, Body", _has(*_POST), stack_exchange.answered,
        stack_exchange.questions,
    ),
    Layout("moss", "conversations", "chat with turn_1, turn_2 ...", _has("chat"), dialogues.moss),
    Layout("moss-text", "conversations", "plain_text", _has("plain_text"), dialogues.moss_text),
    Layout("firefly", "conversations", "conversation of human and assistant", _is_firefly, dialogues.firefly),
    Layout("sharegpt", "conversations", "conversations", _is_sharegpt, dialogues.conversation),
    Layout("ultrachat", "conversations", "data as a list of texts", _is_list_of_texts, dialogues.ultrachat),
    Layout("messages", "conversations", "messages", _has("messages"), dialogues.conversation),
    Layout("alpaca-ranked", "preferences", "instruction, output as a list", _is_alpaca_ranked, rankings.alpaca_ranked),
    Layout(
        "belle-dialogue", "conversations", "instruction as a transcript, output", _is_belle_dialogue,
        dialogues.belle_dialogue,
    ),
    Layout("alpaca", "conversations", "instruction, input, output", _has("instruction", "output"), dialogues.alpaca),
    Layout(
        "self-instruct", "conversations", "instruction, instances", _has("instruction", "instances"),
        dialogues.self_instruct,
    ),
    Layout(
        "dolly", "conversations", "instruction, context, response", _has("instruction", "response"), dialogues.dolly
    ),
    Layout(
        "firefly-target", "conversations", "kind, input, target", _has(*_KIND_INPUT_TARGET), dialogues.firefly_target
    ),
    Layout(
        "prompt-completion", "conversations", "prompt, completion", _has(*_COMPLETION), dialogues.prompt_completion
    ),
    Layout(
        "question-answer", "conversations", "question, answer, no more", _is_question_answer, dialogues.question_answer
    ),
    Layout("prompt", "prompts", "prompt, or instruction", _is_prompt, dialogues.only_prompt),
    Layout("chapters", "documents", "title, author, paragraphs", _is_chapters, documents.chapters),
    Layout("text", "documents", "text", _is_document, documents.document),
)  # fmt: skip
"""Tried in this order: the layout with the most telling keys first."""
