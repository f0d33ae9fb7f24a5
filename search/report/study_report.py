"""Data of a report: trials, counts by document, transfer results and accesses to the test split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clinie_core.data.corpora.loading import CorpusSource
from clinie_core.output_files import write_output
from clinie_core.scoring.error_counts import ErrorCounts
from search.analysis.findings import CorpusRow, Findings, analyze, compare_with_single
from search.analysis.scored_trials import ScoredTrial
from search.config.resources import find_currency
from search.config.space_file import SpaceFile
from search.control.command_log import CommandLog
from search.control.commands import CommandEntry
from search.ledger.ledger import Ledger
from search.ledger.records import TrialRecord, sum_usage
from search.ledger.storage import open_storage
from search.ledger.stored_space import conceal_paths, read_stored_space
from search.ledger.studies import list_study_names
from search.promotion.test_set_accesses import list_accesses_of_study
from search.report.commands import build_commands_section
from search.report.markdown import render_markdown
from search.report.section import ReportSection
from search.report.sections import Curve, TestSetAccess, build_sections
from search.report.settings import separate_settings
from search.tracking.connection import connect, log_report
from search.tracking.document_counts import fetch_document_counts, fetch_error_counts

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from search.storage.home import Home

__all__ = ["ReportFormat", "StudyReport", "build_study_report", "choose_format", "render_report", "write_report"]

ReportFormat = Literal["html", "md", "json"]


@dataclass(frozen=True)
class StudyReport:
    """Results of a study's analysis with the data that its report shows."""

    file: SpaceFile
    findings: Findings
    shots: dict[str, Curve]
    accesses: list[TestSetAccess]
    corpora: list[CorpusRow]
    parent_run: str | None
    errors: ErrorCounts | None = None
    commands: list[CommandEntry] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Heading of the report."""
        return f"Report on {self.file.study}"

    @property
    def facts(self) -> list[str]:
        """Description of the study, and the settings that all its trials share."""
        file = self.file
        first = f"Study {file.study}: {file.task} on {file.corpus_title}, objective {file.objective[0].metric} on dev."
        settings = separate_settings([trial.record.config for trial in self.findings.trials])
        used = sum_usage(trial.record for trial in self.findings.trials).describe(find_currency(file.resources))
        return [first, *filter(None, (settings.description.capitalize(), used and f"Use of all trials: {used}."))]

    @property
    def sections(self) -> list[ReportSection]:
        """Sections of the report."""
        sections = build_sections(
            self.findings, shots=self.shots, accesses=self.accesses, corpora=self.corpora, errors=self.errors
        )
        return sections + build_commands_section(self.commands)

    def as_json(self) -> dict[str, Any]:
        """Return the report's sections as JSON data."""
        return {
            "study": self.file.study,
            "facts": self.facts,
            "sections": [
                {
                    "key": section.key,
                    "title": section.title,
                    "answer": section.answer,
                    "rows": [dict(zip(section.columns, row, strict=True)) for row in section.rows],
                }
                for section in self.sections
            ],
        }


def build_study_report(home: Home, study: str, records: Sequence[TrialRecord]) -> StudyReport:
    """Analyze a study and collect the data of its report.

    Args:
        home: The home folder.
        study: Name of the study.
        records: All trials of the study.

    Raises:
        InputError: If there is no study of that name.
    """
    ledger = Ledger.open(open_storage(home), study)
    attributes, client = ledger.attributes, connect(home)
    findings = analyze(
        study,
        records,
        ledger.metrics[0],
        maximized=ledger.maximized,
        counts=fetch_document_counts(home, study, records),
        importances=ledger.compute_importances(),
        limits=ledger.limits,
    )
    file = read_stored_space(attributes)
    commands = CommandLog(ledger).read()
    shots = _read_transfer_curves(home, study) | _build_learning_curves(findings)
    corpora = _compare_corpora(home, file, findings)
    errors = fetch_error_counts(home, study, findings.winner.record) if findings.winner is not None else None
    accesses, parent = _list_accesses(client, study), attributes.get("parent_run")
    return StudyReport(file, findings, shots, accesses, corpora, parent, errors, commands)


def write_report(home: Home, report: StudyReport, file: Path, format_: ReportFormat) -> None:
    """Write a report to a file and store it with the study in MLflow.

    Args:
        home: The home folder.
        report: The report.
        file: The file to write.
        format_: Format of the file.
    """
    write_output(file, render_report(report, format_))
    if report.parent_run:
        log_report(connect(home), report.parent_run, file)


def choose_format(file: Path | None) -> ReportFormat:
    """Return the format that the suffix of a file names; ``html`` for any other."""
    suffixes: dict[str, ReportFormat] = {".md": "md", ".json": "json"}
    return suffixes.get(file.suffix, "html") if file is not None else "html"


def render_report(report: StudyReport, format_: ReportFormat) -> str:
    """Return the content of a report's file in a format."""
    if format_ == "json":
        return json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n"
    if format_ == "md":
        return render_markdown(report.title, report.facts, report.sections)
    from search.report.page import render_page  # its figures need plotly, which takes a second to import

    return render_page(report.title, report.facts, report.sections, report.findings, report.shots)


def _compare_corpora(home: Home, file: SpaceFile, findings: Findings) -> list[CorpusRow]:
    """Compare a study of several corpora with the best single-corpus study of each in the same home."""
    winner = findings.winner
    if winner is None or len(file.corpus) < 2:
        return []
    rows = []
    for source in conceal_paths(file).corpus:
        score = winner.get_metric(f"{source.title}.strict_f1")
        row = CorpusRow(source.title, score)
        for name in list_study_names(home):
            ledger = Ledger.open(open_storage(home), name)
            other = conceal_paths(read_stored_space(ledger.attributes))
            best = ledger.best()
            if len(other.corpus) != 1 or other.task != file.task or not _is_same(other.corpus[0], source):
                continue
            if best is None or ledger.metrics[0] != findings.metric:
                continue
            counts = fetch_document_counts(home, name, [best]).get(best.number)
            single = ScoredTrial(best, findings.metric, counts)
            if row.alone is None or single.score > row.alone:
                compared = compare_with_single(winner, source.title, single)
                row = CorpusRow(source.title, score, name, single.score, compared)
        rows.append(row)
    return rows


def _is_same(one: CorpusSource, other: CorpusSource) -> bool:
    """Return whether two studies read a corpus from the same folder, or under the same name."""
    return one.path == other.path or one.title == other.title


def _list_accesses(client: MlflowClient, study: str) -> list[TestSetAccess]:
    """Return all promotions of the study that read the test split."""
    found = []
    for read in list_accesses_of_study(client, study):
        decision, content = read.decision, read.entry.content
        said = "-" if decision is None else "passed" if decision["promote"] else "refused"
        score = "-"
        if decision is not None:
            low, high = decision["interval"]
            score = f"{decision['test']['strict_f1']:.4f} ({low:.4f} to {high:.4f})"
        found.append(TestSetAccess(read.model, read.entry.at, int(content["trial"]), int(content["read"]), said, score))
    return found


def _read_transfer_curves(home: Home, study: str) -> dict[str, Curve]:
    """Read the results of the transfer protocol, one curve per held-out corpus."""
    folder = home.study_folder(study) / "transfer"
    if not folder.is_dir():
        return {}
    from clinie_core.training.transfer import TransferResult  # needs torch
    from search.study.transfer import RESULTS, summarize

    file = folder / RESULTS
    if not file.is_file():
        return {}
    results = [TransferResult(**result) for result in json.loads(file.read_text(encoding="utf-8"))["results"]]
    curves: defaultdict[str, list[tuple[int, float, float, float]]] = defaultdict(list)
    for row in summarize(results):
        curves[f"{row.holdout}, held out"].append((row.shots, row.mean, row.low, row.high))
    return dict(curves)


def _build_learning_curves(findings: Findings) -> dict[str, Curve]:
    """Return the best score per number of training documents and architecture, if that number was searched."""
    best: dict[tuple[str, int], ScoredTrial] = {}
    for trial in findings.trials:
        documents = trial.record.parameters.get("train_documents")
        if documents is not None and trial.is_complete:
            key = (trial.architecture, int(documents))
            best[key] = max(best.get(key, trial), trial, key=lambda t: t.score)
    curves: defaultdict[str, list[tuple[int, float, float, float]]] = defaultdict(list)
    for (architecture, documents), trial in sorted(best.items()):
        curves[architecture].append((documents, trial.score, trial.score, trial.score))
    return dict(curves)
