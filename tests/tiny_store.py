"""A small store of labels, made through the store's own interface."""

from pathlib import Path

from fairlead.feedback.accounts import add_user
from fairlead.feedback.chats import add_edit, add_message, add_opinion, new_chat
from fairlead.feedback.comparisons import Answer, Verdict, add_comparison, add_ranking, answers_of_all
from fairlead.feedback.once import latest
from fairlead.feedback.schema import rankings
from fairlead.feedback.store import Store, open_store
from fairlead.records import Message


def labelled_store(path: Path) -> None:
    """12 rankings of three answers, and 12 answers with a thumb and an edit, all by ann."""
    store = open_store(str(path), create=True)
    ann = add_user(store, "ann", "annotator", "a long password")
    chat = new_chat(store, ann, "t")
    for step in range(12):
        texts = [f"answer {word} {step}" for word in ("good", "fair", "poor")]
        number = add_comparison(store, ann, [Message("user", f"q {step}")], [Answer("m", text, {}) for text in texts])
        ranks = {row["id"]: place for place, row in enumerate(answers_in(store, number), start=1)}
        add_ranking(store, ann, number, Verdict("ranked", ranks, {}), key=f"r{step}")
        asked = add_message(store, ann, chat, parent=None, role="user", content=f"asked {step}")
        told = add_message(store, ann, chat, parent=asked, role="assistant", content=f"told {step}", model="m")
        add_opinion(store, ann, told, thumb=1 if step % 2 else -1, reasons=(), comment="", key=f"o{step}")
        add_edit(store, ann, told, content=f"better {step}", key=f"e{step}")
    store.close()


def answers_in(store: Store, comparison: int) -> list:
    """The answers of a comparison, as the store holds them."""
    with store.read() as connection:
        return answers_of_all(connection)[comparison]


def rankings_in(store: Store, until: int = 10**9) -> list:
    """The rankings that count, as if none had come behind this number."""
    with store.read() as connection:
        return list(latest(connection, rankings, rankings.c.comparison_id, rankings.c.id <= until))
