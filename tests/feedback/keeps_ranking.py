"""Ranks one comparison again and again, and says each key once it is kept: python keeps_ranking.py STORE FIRST"""

import sys

from fairlead.feedback.accounts import SCOPES, User
from fairlead.feedback.comparisons import Answer, Verdict, add_comparison, add_ranking, answers_of_all
from fairlead.feedback.store import open_store
from fairlead.records import Message

store = open_store(sys.argv[1])
ann = User(2, "ann", "annotator", SCOPES["annotator"])
add_comparison(store, ann, [Message("user", "q")], [Answer("m", "one", {}), Answer("m", "two", {})])
with store.read() as connection:
    first, second = (row["id"] for row in answers_of_all(connection)[1])
print("ready", flush=True)
for step in range(int(sys.argv[2]), 10**9):
    add_ranking(store, ann, 1, Verdict("ranked", {first: 1, second: 2}, {}), key=f"key-{step}")
    print(f"key-{step}", flush=True)
