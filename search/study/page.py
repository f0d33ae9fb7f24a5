"""The page of a study in MLflow: its address, its description, and the view of its trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from clinie_core.errors import fail
from search.config.description import describe_config
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.ledger.ledger import Ledger
from search.ledger.ranking import RankedTrial
from search.ledger.storage import open_storage
from search.ledger.studies import list_study_names
from search.storage.home import Home, hide_password
from search.tracking.connection import connect
from search.tracking.metric_names import name_objective
from search.tracking.study_view import StudyView, find_experiment, has_view, make_overview_path, make_study_path

__all__ = ["StudyPage", "describe_study", "find_page", "make_view"]

PARTS = ("formulation", "relation_formulation", "finetuning")
SHARED = ("learning_rate", "rank")
"""Parameters that have a common name in the runs of all fine-tuning methods."""


def make_view(space: SearchSpace) -> StudyView:
    """Make the view of a study's trials from its search space."""
    paths = (path for path, domain in space.dimensions() if domain.size > 1)
    return _make_view(space.file, paths, flat_names=False)


def describe_study(file: SpaceFile, best: RankedTrial | None) -> str:
    """Return the description of a study in MLflow, as Markdown.

    Args:
        file: The space file of the study.
        best: Its best trial; None before the first one is complete.
    """
    objective = file.objective[0]
    lines = [
        f"Search for the best configuration on **{file.corpus_title}** ({file.task}), by `{objective.metric}` on dev.",
        f"Each trial is a run; `{name_objective(objective.metric)}` is the value of its best epoch on dev, which"
        " is optimistic for the best trial.",
    ]
    if best is not None and best.record.config is not None:
        lines.append(f"Best so far: trial {best.record.number}, {best}: {describe_config(best.record.config)}.")
    lines.append(f"`clinie report {file.study} -o report.html` compares the configurations.")
    return "\n\n".join(lines)


@dataclass(frozen=True)
class StudyPage:
    """Place of a study's page.

    Args:
        home: Home folder with the MLflow server or database of the study.
        path: Path of the page within MLflow's pages.
    """

    home: Home
    path: str


def find_page(home: Home, study: str | None) -> StudyPage:
    """Find the page of a study in MLflow; the view of a study of an earlier version is stored first.

    Args:
        home: Home folder of the study.
        study: Name of the study; None for the only study of the folder, or for the list of all studies.

    Raises:
        InputError: If there is no study of that name.
    """
    names = list_study_names(home)
    if study is None and len(names) != 1:
        connect(home)
        return StudyPage(home, make_overview_path())
    ledger = Ledger.open(open_storage(home), study or names[0])
    attributes = ledger.attributes
    place = replace(home, server=home.server or attributes.get("server"))
    client = connect(place)
    experiment = find_experiment(client, ledger.name)
    if experiment is None:
        fail("STUDY", f"study {ledger.name!r} has no runs in MLflow at {hide_password(place.tracking_uri)}")
    if not has_view(client, experiment):
        paths = dict.fromkeys(path for record in ledger.records() for path in record.parameters)
        file = SpaceFile.model_validate(attributes["space"])
        _make_view(file, paths, flat_names=True).store(client, experiment)
    return StudyPage(place, make_study_path(experiment))


def _make_view(file: SpaceFile, paths: Iterable[str], *, flat_names: bool) -> StudyView:
    objectives = file.objective
    params = dict.fromkeys(name for path in paths for name in _list_params(path))
    if "finetuning" in params:  # MLflow's chart omits trials that lack a parameter, and some methods have no rank
        params.pop("rank", None)
    ascending = objectives[0].direction == "minimize"
    return StudyView([o.metric for o in objectives], ascending, list(params), flat_names)


def _list_params(path: str) -> list[str]:
    """Return the MLflow parameter of a dimension that most trials have; none for those of a single method."""
    first, _, rest = path.partition(".")
    if not rest:
        return [first]
    own = rest.rpartition(".")[2]
    if first in PARTS and own in ("encoder", "decoder", "scratch"):  # the branch by the kind of the backbone
        return [first]
    return [own] if own in SHARED else []
