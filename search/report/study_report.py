"""Data of a report: trials, counts by document, transfer results and accesses to the test split."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinie_core.training.transfer import TransferResult
from search.analysis.findings import CorpusRow, Findings, ScoredTrial, analyze, compare_with_single
from search.config.space_file import SpaceFile
from search.ledger.ledger import Ledger, list_study_names, open_storage
from search.promotion.test_set_accesses import list_accesses_of_study
from search.report.sections import Curve, ReportSection, TestSetAccess, build_sections
from search.study.transfer import RESULTS, summarize
from search.tracking.connection import connect
from search.tracking.document_counts import fetch_document_counts

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from search.storage.home import Home

__all__ = ["StudyReport", "build_study_report"]


@dataclass(frozen=True)
class StudyReport:
    """Results of a study's analysis with the data that its report shows."""

    file: SpaceFile
    findings: Findings
    shots: dict[str, Curve]
    accesses: list[TestSetAccess]
    corpora: list[CorpusRow]
    parent_run: str | None

    @property
    def facts(self) -> str:
        """One-line description of the study."""
        file = self.file
        return f"Study {file.study}: {file.task} on {file.corpus_title}, objective {file.objective[0].metric} on dev."

    @property
    def sections(self) -> list[ReportSection]:
        """Sections of the report."""
        return build_sections(self.findings, shots=self.shots, accesses=self.accesses, corpora=self.corpora)

    def as_json(self) -> dict[str, Any]:
        """Return the report's sections as JSON data."""
        return {
            "study": self.file.study,
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


def build_study_report(home: Home, study: str) -> StudyReport:
    """Analyze a study and collect the data of its report.

    Args:
        home: The home folder.
        study: Name of the study.

    Raises:
        InputError: If there is no study of that name.
    """
    ledger = Ledger.open(open_storage(home), study)
    attributes, records, client = ledger.attributes, ledger.records(), connect(home)
    findings = analyze(
        study,
        records,
        ledger.metrics[0],
        maximized=ledger.maximized,
        counts=fetch_document_counts(client, records),
        importances=ledger.compute_importances(),
        limits=ledger.limits,
    )
    file = SpaceFile.model_validate(attributes["space"])
    shots = _read_transfer_curves(home, study) | _build_learning_curves(findings)
    corpora = _compare_corpora(home, client, file, findings)
    return StudyReport(file, findings, shots, _list_accesses(client, study), corpora, attributes.get("parent_run"))


def _compare_corpora(home: Home, client: MlflowClient, file: SpaceFile, findings: Findings) -> list[CorpusRow]:
    """Compare a study of several corpora with the best single-corpus study of each in the same home."""
    winner = findings.winner
    if winner is None or len(file.corpus) < 2:
        return []
    rows = []
    for source in file.corpus:
        score = winner.get_metric(f"{source.title}.strict_f1")
        row = CorpusRow(source.title, score)
        for name in list_study_names(home):
            ledger = Ledger.open(open_storage(home), name)
            other = SpaceFile.model_validate(ledger.attributes["space"])
            best = ledger.best()
            same = [o.title for o in other.corpus] == [source.title] and other.task == file.task
            if not same or best is None or ledger.metrics[0] != findings.metric:
                continue
            counts = fetch_document_counts(client, [best]).get(best.number)
            single = ScoredTrial(best, findings.metric, counts)
            if row.alone is None or single.score > row.alone:
                compared = compare_with_single(winner, source.title, single)
                row = CorpusRow(source.title, score, name, single.score, compared)
        rows.append(row)
    return rows


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
    file = home.study_folder(study) / "transfer" / RESULTS
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
