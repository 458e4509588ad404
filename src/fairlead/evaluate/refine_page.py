"""The page of refined data: rows in and out of every step, what was dropped, shares, digests; one HTML file."""

from pathlib import Path

from fairlead.artifacts.atomic import write_text
from fairlead.evaluate.pages import render
from fairlead.evaluate.refine_summary import RefineSummary


def refine_page(folder: Path, summary: RefineSummary) -> Path:
    """Write `report.html` into the stage's folder; return its path."""
    read = max(summary.num_read, 1)
    kept = summary.num_train + summary.num_held_out
    steps = [
        {
            "name": step.name, "rows_out": step.rows_out, "dropped": step.dropped, "changed": step.changed,
            "kept_width": f"{100 * step.rows_out / read:.2f}", "dropped_width": f"{100 * step.dropped / read:.2f}",
            "examples": step.examples,
        }
        for step in summary.steps
    ]  # fmt: skip
    sources = [
        {"name": name, "read": was, "kept": stays, "share": f"{stays / max(kept, 1):.1%}"}
        for name, (was, stays) in summary.by_source.items()
    ]
    groups = [
        {"name": name, "kept": count, "share": f"{count / max(kept, 1):.1%}"}
        for name, count in summary.by_group.items()
    ]
    tiles = [
        {"label": "Rows read", "value": f"{summary.num_read:,}", "note": f"{len(sources)} sources", "tone": ""},
        {"label": "Rows to train on", "value": f"{summary.num_train:,}", "note": f"{kept / read:.1%} stay", "tone": ""},
        {"label": "Held out", "value": f"{summary.num_held_out:,}", "note": "no like prompt in training", "tone": ""},
        {
            "label": "Contaminated", "value": f"{summary.num_contaminated:,}", "note": "hold an evaluation's question",
            "tone": "",
        },
    ]  # fmt: skip
    context = {
        "title": "Refined data", "name": folder.name, "tiles": tiles, "steps": steps, "sources": sources,
        "groups": groups, "digests": sorted(summary.digests.items()),
    }  # fmt: skip
    path = folder / "report.html"
    write_text(path, render("refine.html", context))
    return path
