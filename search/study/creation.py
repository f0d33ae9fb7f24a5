"""Creation of a study in the ledger, with the first configurations that its sampler tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.data.document import Corpus
from search.config.search_space import SearchSpace
from search.ledger.first_points import find_first_points
from search.ledger.ledger import Ledger, Storage
from search.ledger.stored_space import store_space
from search.ledger.winners import CORPUS_DIGEST, DOCUMENTS, CorpusIdentity
from search.storage.home import Home

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["create_study"]


def create_study(
    storage: Storage, client: MlflowClient, space: SearchSpace, corpus: Corpus, where: str, home: Home
) -> None:
    """Store a new study in the ledger.

    Args:
        storage: The ledger.
        client: Client of MLflow, which may have winners of earlier studies.
        space: Space of the study.
        corpus: Its corpus.
        where: Name of the space file, for messages.
        home: The home folder.

    Raises:
        InputError: If a study of that name exists.
    """
    from search.tracking.history import find_winners

    file = space.file
    identity = CorpusIdentity.from_corpus(corpus)
    attributes = {
        "space": store_space(file, home),
        "where": where,
        CORPUS_DIGEST: identity.digest,
        DOCUMENTS: sorted(identity.documents),
    }
    algorithm = file.algorithm
    warm = algorithm.sampler == "auto" and algorithm.warm_start
    others = find_winners(client, file.task, file.objective[0], identity) if warm else []
    points = find_first_points(space, storage, identity, others) if warm else []
    attributes["first_points"] = [point.source for point in points]
    Ledger.create(
        storage,
        file.study,
        file.objective,
        algorithm,
        attributes,
        first_points=[point.values for point in points],
        limits=file.metric_limits,
    )
