"""Likeness of texts by loops from the definitions."""

import re


def longest_common(one, other):
    """Length of the longest common subsequence: the table of Wagner and Fischer (1974)."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def rouge_l(one, other):
    """F of precision and recall (Lin 2004, equations 2 to 4 with beta = 1) over words; a Han character is one."""
    words = [re.findall(r"[\u4e00-\u9fff]|[a-z0-9]+", text.lower()) for text in (one, other)]
    if not all(words):
        return 0.0
    common = longest_common(*words)
    recall, precision = (common / len(side) for side in words)
    return 2 * recall * precision / (recall + precision) if common else 0.0
