"""The page of an audit: one HTML file with a verdict per check, distributions, and rows token by token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairlead.artifacts.atomic import write_text
from fairlead.data.audit.audit import Audit
from fairlead.data.audit.findings import Bar, Finding, Verdict
from fairlead.data.audit.samples import Sample
from fairlead.evaluate.pages import render
from fairlead.evaluate.wording import count, percent, readable

_GRAVEST_FIRST: tuple[Verdict, ...] = ("fatal", "warning", "ok")
_MARKS = {"ok": "✓ ok", "warning": "! warning", "fatal": "✗ fatal"}
_SAYS = {
    "fatal": "Do not train on these rows with this model as they are.",
    "warning": "These rows can be trained on; read the warnings first.",
    "ok": "Nothing was found that speaks against training on these rows.",
}


def audit_page(folder: Path, audit: Audit) -> Path:
    """Write `NAME.html` into the folder, named after the rows; return its path."""
    path = folder / f"{Path(audit.path).name.partition('.')[0] or 'audit'}.html"
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(audit.findings, key=lambda finding: _GRAVEST_FIRST.index(finding.verdict))
    context = {
        "name": Path(audit.path).name,
        "path": audit.path,
        "verdict": audit.verdict,
        "says": _SAYS[audit.verdict],
        "tiles": _tiles(audit),
        "findings": [_finding(finding, audit) for finding in ordered],
        "distributions": [_distribution(finding) for finding in audit.findings if finding.bars],
        "not_checked": audit.not_checked,
        "samples": [_sample(sample, audit) for sample in audit.samples],
        "facts": _facts(audit),
    }
    write_text(path, render("audit.html", context))
    return path


def _tiles(audit: Audit) -> list[dict[str, str]]:
    tone = "good" if audit.verdict == "ok" else "bad" if audit.verdict == "fatal" else ""
    checks = f"{len(audit.findings)} checks: {audit.counts}"
    median = next((finding.number for finding in audit.findings if finding.name == "lengths"), "")
    tokens = median.removeprefix("median ").partition(" ")[0] if median.startswith("median") else "–"
    return [
        {"label": "Verdict", "value": audit.verdict, "note": checks, "tone": tone},
        {"label": "Rows", "value": count(audit.num_rows), "note": audit.kind, "tone": ""},
        {
            "label": "Rows whose tokens were checked", "value": count(audit.num_encoded),
            "note": f"drawn with seed {audit.seed}" if audit.num_encoded < audit.num_rows else "all that can be read",
            "tone": "",
        },
        {"label": "Median length", "value": tokens, "note": f"tokens; cut at {audit.max_length}", "tone": ""},
    ]  # fmt: skip


def _finding(finding: Finding, audit: Audit) -> dict[str, Any]:
    return {
        "title": finding.title,
        "name": finding.name,
        "verdict": finding.verdict,
        "mark": _MARKS[finding.verdict],
        "number": finding.number,
        "sentence": readable(finding.sentence),
        "fix": finding.fix,
        "shown": [
            {
                "source": audit.brief(shown.source),
                "came": readable(audit.brief(shown.came)),
                "wanted": readable(shown.wanted),
            }
            for shown in finding.shown
        ],
    }


def _distribution(finding: Finding) -> dict[str, Any]:
    total = max(sum(bar.count for bar in finding.bars), 1)
    largest = max(bar.count for bar in finding.bars) or 1
    return {
        "title": finding.title,
        "sentence": finding.sentence,
        "bars": [_bar(bar, total, largest) for bar in finding.bars],
    }


def _bar(bar: Bar, total: int, largest: int) -> dict[str, str]:
    return {
        "label": bar.label,
        "count": count(bar.count),
        "share": percent(bar.count / total),
        "width": f"{100 * bar.count / largest:.2f}",
    }


def _sample(sample: Sample, audit: Audit) -> dict[str, Any]:
    return {
        "title": audit.brief(sample.title),
        "num_tokens": sample.num_tokens,
        "num_trained": sample.num_trained,
        "num_cut": sample.num_cut,
        "pieces": [
            {
                "text": _visible(piece.text),
                "role": piece.role,
                "trained": piece.trained,
                "says": f"{piece.role}, weight {int(piece.trained)}"
                + (f", {piece.num_tokens} tokens" if piece.num_tokens > 1 else ""),
            }
            for piece in sample.pieces
        ],
    }


def _visible(text: str) -> str:
    """A line feed shows, and still breaks the line."""
    return readable(text).replace("\n", "↵\n").replace("\t", "⇥\t")


def _facts(audit: Audit) -> Sequence[tuple[str, str]]:
    return (
        ("Rows", audit.path),
        ("Layout", ", ".join(audit.layouts) or "unknown"),
        *(("Reading", note) for note in audit.notes),
        ("Model", audit.model),
        ("Chat template", audit.template),
        ("Longest sequence", f"{audit.max_length} tokens"),
        ("Seed", str(audit.seed)),
    )
