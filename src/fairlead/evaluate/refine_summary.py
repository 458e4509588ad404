"""What is told of refined data: numbers and examples, for the page and the manifest. No torch here."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepCount:
    """What one step did. `examples` are some of the rows that it dropped: reason, source, how the text begins."""

    name: str
    rows_in: int
    rows_out: int
    changed: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Rows that went here."""
        return self.rows_in - self.rows_out


@dataclass(frozen=True, slots=True)
class RefineSummary:
    """The account of a refinery."""

    steps: list[StepCount]
    num_train: int
    num_held_out: int
    by_source: dict[str, tuple[int, int]]  # rows read and rows that stay
    by_group: dict[str, int]  # rows that stay, by the group of the mix
    by_kind: dict[str, int]  # rows that stay, by what they are: conversation, preference ...
    num_contaminated: int  # rows that hold a question of an evaluation
    digests: dict[str, str]  # sha256 of each file of rows, which the manifests of training carry

    @property
    def num_read(self) -> int:
        """Rows of all sources."""
        return self.steps[0].rows_in
