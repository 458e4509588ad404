"""Posts of a Stack Exchange dump become questions, each with its answers and their grades. No torch here.

A grade is that of Askell et al. (2021): the logarithm to base 2 of 1 + votes, rounded, plus 1 for the answer that the
questioner accepted; -1 where the votes are negative. Of a question at most `MAX_ANSWERS` answers are kept: of every
grade the one with the most votes, then the next of every grade, so that good and bad stay side by side. A question
whose answers cannot be told apart by their grades is no preference, but a prompt.
"""

import math
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from fairlead.data.drafts import BadRowError, Draft, LeftOutError
from fairlead.data.fields import required, text
from fairlead.data.html_text import html_text
from fairlead.data.streams import Row
from fairlead.records import Message

MAX_ANSWERS = 10
_TABLES = """
create table questions (id integer primary key, line integer, title text, body text, accepted integer);
create table answers (id integer primary key, line integer, question integer, votes integer, body text);
"""


def questions(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Questions with their answers, in order of their posts; rows that are only a reason pass through.

    The posts wait in a database of their own, in memory or, where they are many, in a temporary file.
    """
    with closing(sqlite3.connect("")) as posts:
        posts.executescript(_TABLES)
        for line, row in rows:
            try:
                if isinstance(row, str):
                    yield line, row
                else:
                    _keep(posts, line, row)
            except BadRowError as error:
                yield line, str(error)
            except sqlite3.IntegrityError:
                yield line, "two posts have the same `Id`"
        posts.execute("create index answers_of on answers (question)")
        for id_, line, title, body, accepted in posts.execute("select * from questions order by line, id"):
            found = posts.execute("select id, votes, body from answers where question = ? order by id", (id_,))
            answers = [{"body": words, "votes": votes, "accepted": key == accepted} for key, votes, words in found]
            yield line, {"title": title, "question": body, "answers": answers}
        lost = posts.execute("select line from answers where question not in (select id from questions) order by line")
        yield from ((line, {"answers": []}) for (line,) in lost)


def _keep(posts: sqlite3.Connection, line: int, row: dict[str, Any]) -> None:
    match str(row.get("PostTypeId")):
        case "1":
            accepted = _whole(row, "AcceptedAnswerId") if row.get("AcceptedAnswerId") else None
            values = (_whole(row, "Id"), line, text(row, "Title", ""), text(row, "Body"), accepted)
            posts.execute("insert into questions values (?, ?, ?, ?, ?)", values)
        case "2":
            values = (_whole(row, "Id"), line, _whole(row, "ParentId"), _whole(row, "Score"), text(row, "Body"))
            posts.execute("insert into answers values (?, ?, ?, ?, ?)", values)
        case _:
            pass  # texts of tags, elections and the like


def _whole(row: dict[str, Any], key: str) -> int:
    value = str(required(row, key))
    if not (value.removeprefix("-").isdecimal() and len(value) < 18):
        raise BadRowError(f"`{key}` should be a whole number and is {value!r}")
    return int(value)


def answered(row: dict[str, Any]) -> Draft:
    """A question as a prompt, with its graded answers."""
    if "question" not in row:
        raise LeftOutError("an answer to a question that is not in the file")
    asked = "\n\n".join(part for part in (row["title"].strip(), html_text(row["question"])) if part)
    graded = [(grade(answer["votes"], accepted=answer["accepted"]), answer) for answer in row["answers"]]
    graded.sort(key=lambda pair: (-pair[0], -pair[1]["votes"]))
    texts = [(score, html_text(answer["body"])) for score, answer in _spread(graded)]
    kept = [(score, said) for score, said in texts if said]  # a picture alone has no text
    return Draft(
        (Message("user", asked),), tuple(said for _, said in kept), tuple(score for score, _ in kept), may_be_short=True
    )


def _spread(graded: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
    """At most `MAX_ANSWERS` of the answers, which come best first and stay so, of as many grades as possible."""
    seen: Counter[float] = Counter()
    places = []
    for place, (score, _) in enumerate(graded):
        places.append((seen[score], place))
        seen[score] += 1
    return [graded[place] for _, place in sorted(sorted(places)[:MAX_ANSWERS], key=lambda pair: pair[1])]


def grade(votes: int, *, accepted: bool) -> float:
    """How good an answer with that many votes is."""
    return -1.0 if votes < 0 else float(round(math.log2(1 + votes)) + accepted)
