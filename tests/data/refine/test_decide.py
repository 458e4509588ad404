"""What is said of rows that go for reasons outside of them."""

import numpy as np

from fairlead.data.benchmark_items import BenchmarkItem
from fairlead.data.decontaminate import Hit
from fairlead.data.refine.decide import CONTAMINATED, STEPS, Decisions


class Counted(list):
    """A list that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, place):
        self.looks += 1
        return super().__getitem__(place)

    def __iter__(self):
        for place in range(len(self)):
            yield self[place]


def test_the_hit_of_a_row_is_found_without_looking_at_all():
    number = 1000
    items = [BenchmarkItem(f"bench:{line}", "what") for line in (1, 2)]
    hits = Counted(Hit(index, item, 3, 4) for index in range(0, number, 2) for item in items)
    step = np.full(number, 1 + STEPS.index(CONTAMINATED), dtype=np.uint8)
    none = np.zeros(number)
    decisions = Decisions(step, none, none, none, [], none, none, hits=hits)
    for index in range(0, number, 2):
        assert decisions.reason(index, str) == (CONTAMINATED, "holds 3 of 4 runs of bench:1")
    assert hits.looks < number / 2 * 20
