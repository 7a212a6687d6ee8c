"""Files, directories and stdin for `lint`, document by document."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flywheel.cli.errors import UNANSWERED, Problem
from flywheel.cli.lint import is_ours, lint
from flywheel.cli.lint_rules import Finding

SUFFIXES = {".yaml", ".yml", ".json"}
STDIN = Path("-")


@dataclass
class Report:
    """What was found where."""

    objects: int = 0
    others: int = 0  # documents of other groups
    findings: list[tuple[str, str, Finding]] = field(default_factory=list)  # file, object, what

    def lines(self) -> list[str]:
        """For people: a line a finding, and the sum."""
        told = [f"{file}: {thing}: {finding}" for file, thing, finding in self.findings]
        sum_ = f"{self.objects} objects checked, {len(self.findings)} findings"
        return [*told, sum_ + (f"; {self.others} documents of other kinds left alone" if self.others else "")]

    def dump(self) -> list[dict[str, Any]]:
        """For scripts."""
        return [{"file": f, "object": thing, "path": one.path, "message": one.message} for f, thing, one in self.findings]


def checked(paths: Sequence[Path]) -> Report:
    """Every document of every file."""
    report = Report()
    for path in paths:
        for file in _files(path):
            for document in documents(file):
                _check(report, file, document)
    if not report.objects and not report.findings:
        raise Problem(f"There is no object of Flywheel in {', '.join(map(str, paths))}.")
    return report


def _check(report: Report, file: Path, document: Any) -> None:
    inner = document.get("items") if isinstance(document, dict) and document.get("kind") == "List" else [document]
    for body in inner if isinstance(inner, list) else []:
        if not is_ours(body):
            report.others += 1
            continue
        report.objects += 1
        metadata = body.get("metadata")
        named = metadata.get("name") or metadata.get("generateName") if isinstance(metadata, dict) else None
        thing = f"{body.get('kind')}/{named or '?'}"
        report.findings += [(str(file), thing, finding) for finding in lint(body)]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    else:
        yield path


def documents(file: Path) -> list[Any]:
    try:
        words = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
        return [document for document in yaml.safe_load_all(words) if document is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{file} can't be read ({error}); name YAML or JSON files, or - for stdin.", UNANSWERED) from error
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise Problem(f"{file} is not YAML ({where}); a chart's template must be rendered first: `helm template`.") from error
