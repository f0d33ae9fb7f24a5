"""Promotions on a real registry: accepted, refused, killed at any point, rolled back and copied."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus, Document
from clinie_core.errors import InputError
from clinie_core.inference.extractor import annotations_to_json
from clinie_core.modeling.model import ExtractionModel
from clinie_core.training.train import train
from search.promotion.candidate import Candidate, Promotion
from search.promotion.copying import copy_model
from search.promotion.history import History
from search.promotion.policy import Policy
from search.promotion.promotion import HistoryBroken, PromotionRun, roll_back
from search.promotion.registration import (
    PredictionsDiffer,
    fetch_model_files,
    list_requirements,
    load_registered_extractor,
)
from search.promotion.test_set_accesses import count_accesses
from search.storage.home import Home
from search.tracking.connection import connect, get_code_version

MUTATING = (
    "create_registered_model",
    "set_registered_model_tag",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_model_version",
    "set_model_version_tag",
    "update_model_version",
    "update_registered_model",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "log_batch",
)
OPEN = Policy(version=1)
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".ckpt", ".pyc"}


class Registry:
    """Registry of a home folder, with a study's run and a trial to promote."""

    def __init__(self, folder: Path, corpus: Corpus, checkpoint: Path, config: TrialConfig) -> None:
        self.home = Home(folder)
        self.client = connect(self.home)
        self.corpus = Corpus({"dev": corpus["dev"], "test": corpus["test"]})
        experiment = self.client.create_experiment("study", artifact_location=(folder / "artifacts").as_uri())
        self.parent = self.client.create_run(experiment).info.run_id
        self.config = config
        self._checkpoint = checkpoint

    def candidate(self, **changes: Any) -> Candidate:
        values: dict[str, Any] = {
            "study": "study",
            "trial": 0,
            "config_digest": self.config.digest(),
            "checkpoint": self._checkpoint.as_uri(),
            "corpus": "synthetic",
            "corpus_digest": "c" * 64,
            "space_digest": "s" * 64,
            "test_digest": self.corpus.digest("test"),
            "base": "whole",
        }
        return Candidate(**(values | changes))

    def promote(self, policy: Policy = OPEN, *, dry_run: bool = False, **changes: Any) -> Promotion:
        return PromotionRun(
            client=self.client,
            home=self.home.root,
            name="model",
            candidate=self.candidate(**changes),
            corpus=self.corpus,
            dev_metrics={"strict_f1": 0.5},
            policy=policy,
            parent_run=self.parent,
            dry_run=dry_run,
        ).run()

    @property
    def history(self) -> History:
        return History(self.client, "model")

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.history.read_entries()]


@pytest.fixture
def registry(tmp_path: Path, corpus: Corpus, trained: Any) -> Registry:
    checkpoint, (config, _) = trained
    return Registry(tmp_path, corpus, checkpoint, config)


def test_a_promotion_is_recorded_and_runs_once(registry: Registry) -> None:
    done = registry.promote()
    assert done.promoted
    registered, read, decided, promoted = registry.history.read_entries()
    assert [e.kind for e in (registered, read, decided, promoted)] == ["registered", "read", "decision", "promoted"]
    assert (read.content["test_digest"], read.content["read"]) == (registry.corpus.digest("test"), 1)
    assert decided.content["decision"] == json.loads(json.dumps(done.decision.as_json()))
    assert registered.content["version"] == promoted.content["version"] == done.version
    assert registry.history.find_faults() == []
    version = registry.client.get_model_version_by_alias("model", "champion")
    for tag, value in registry.candidate().model_dump().items():
        assert version.tags[f"clinie.{tag}"] == str(value), tag
    assert version.tags["clinie.gate"] == "passed"
    assert version.tags["clinie.code"] == get_code_version()
    assert version.tags["clinie.packages"].split() == list_requirements("lora")
    score = done.decision.test
    for expected in (
        f"| all&emsp; | {score['strict_precision']:.4f}&emsp; | {score['strict_recall']:.4f}&emsp; | ",
        "95 % interval",
        "This is the first read of this test split",
        "### Intended use",
        "### Limits",
        *(f"| {name}&emsp; | " for name in done.decision.types),
    ):
        assert expected in version.description
    page = registry.client.get_registered_model("model").description
    assert "**Champion: version 1**" in page
    assert f"strict F1 {score['strict_f1']:.4f}" in page
    assert version.tags["clinie.test_strict_f1"] == f"{done.decision.test['strict_f1']:.4f}"

    again = registry.promote()
    assert again.already
    assert again.version == done.version
    assert registry.kinds() == ["registered", "read", "decision", "promoted"]


def test_each_read_of_the_test_split_lowers_the_significance_level(registry: Registry) -> None:
    strict = Policy.model_validate({"version": 1, "first_champion": {"strict_f1": 1.0}})
    dry = registry.promote(strict, dry_run=True)
    assert not dry.decision.promote
    assert dry.version is None
    assert registry.kinds() == ["read", "decision"]
    assert registry.client.search_model_versions("name = 'model'") == []

    refused = registry.promote(strict)  # the same promotion does not read the test split again
    assert not refused.promoted
    assert refused.decision == dry.decision
    assert refused.decision.refusals[0].startswith("first_champion.strict_f1: ")
    version = registry.client.get_model_version_by_alias("model", "challenger")
    assert version.tags["clinie.gate"].startswith("refused: first_champion.strict_f1: ")
    assert registry.history.find_champion() is None

    other = registry.promote(trial=1)  # another promotion on the same split
    assert other.promoted
    assert other.decision.read == 2
    assert other.decision.level < dry.decision.level
    assert count_accesses(registry.client, registry.corpus.digest("test")) == 2


def test_an_equal_model_is_refused_and_a_rollback_restores_the_previous_champion(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.promote()
    second = registry.promote(trial=1)
    assert not second.promoted
    assert "against" in second.decision.refusals[0]
    assert "refused: alpha: strict F1" in registry.client.get_registered_model("model").description
    assert registry.history.find_champion() == first.version
    with pytest.raises(InputError, match="model 'model' has no previous champion"):
        roll_back(registry.client, "model")

    monkeypatch.setattr(PromotionRun, "_measure_champion", lambda *_: None)  # as if there were no champion to beat
    third = registry.promote(trial=2)
    assert registry.history.find_champion() == third.version
    assert f"**Champion: version {third.version}**" in registry.client.get_registered_model("model").description
    assert roll_back(registry.client, "model") == (third.version, first.version)
    page = registry.client.get_registered_model("model").description
    assert f"**Champion: version {first.version}**" in page
    assert f"`clinie rollback model` replaced version {third.version} by it." in page
    assert registry.history.find_champion() == first.version
    assert registry.history.find_faults() == []
    with pytest.raises(InputError, match="has no previous champion"):
        roll_back(registry.client, "model")


def test_a_damaged_history_prevents_promotions(registry: Registry) -> None:
    registry.promote()
    registry.client.delete_registered_model_tag("model", "clinie.history.000002")
    with pytest.raises(HistoryBroken, match="history of model 'model' is damaged: entry 2 is missing"):
        registry.promote(trial=1)


PROMOTE = """
import json, os, signal, sys
from pathlib import Path
from mlflow.tracking import MlflowClient
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from search.promotion.candidate import Candidate
from search.promotion.policy import Policy
from search.promotion.promotion import PromotionRun
from search.storage.home import Home
from search.tracking.connection import connect

request = json.load(sys.stdin)
made = 0

def kill_after_change(original):
    def call(self, *args, **kwargs):
        global made
        result = original(self, *args, **kwargs)
        made += 1
        if made == request["calls"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

for name in request["mutating"]:
    setattr(MlflowClient, name, kill_after_change(getattr(MlflowClient, name)))
splits = {split: tuple(notes) for split, notes in generate_splits(20, seed=3).items()}
PromotionRun(
    client=connect(Home(Path(request["home"]))),
    home=Path(request["home"]),
    name="model",
    candidate=Candidate.model_validate(request["candidate"]),
    corpus=Corpus({"dev": splits["dev"], "test": splits["test"]}),
    dev_metrics={"strict_f1": 0.5},
    policy=Policy(version=1),
    parent_run=request["parent"],
).run()
print("changes", made)
"""
CHANGES = 28
"""Number of changes that one promotion makes to the registry."""


def promote_in_process(registry: Registry, calls: int) -> subprocess.CompletedProcess[str]:
    """Promote in a process that is killed right after the given number of changes to the registry."""
    request = {
        "calls": calls,
        "mutating": MUTATING,
        "home": str(registry.home.root),
        "candidate": registry.candidate().model_dump(mode="json"),
        "parent": registry.parent,
    }
    command = [sys.executable, "-c", PROMOTE]
    return subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "calls", [pytest.param(n, marks=[] if n == 15 else [pytest.mark.slow]) for n in range(1, CHANGES + 1)]
)
def test_a_promotion_killed_after_any_change_resumes_to_the_same_result(registry: Registry, calls: int) -> None:
    killed = promote_in_process(registry, calls)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    done = registry.promote()
    assert done.promoted
    versions = registry.client.search_model_versions("name = 'model'")
    assert versions[0].tags["clinie.test_strict_f1"] == f"{done.decision.test['strict_f1']:.4f}"
    assert [str(version.version) for version in versions] == ["1"]
    assert registry.history.find_champion() == "1"
    assert "**Champion: version 1**" in registry.client.get_registered_model("model").description
    assert sorted(registry.kinds()) == ["decision", "promoted", "read", "registered"]
    assert registry.history.find_faults() == []


@pytest.mark.slow
def test_the_number_of_changes_is_complete(registry: Registry) -> None:
    done = promote_in_process(registry, 10_000)
    assert f"changes {CHANGES}" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("base", ["whole", "merged"])
def test_a_registered_model_contains_no_pickle_and_predicts_like_its_extractor(registry: Registry, base: str) -> None:
    done = registry.promote(base=base)
    folder = fetch_model_files(f"model/{done.version}")
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert not {file for file in files if file.suffix in PICKLES}
    assert {file.suffix for file in files if "extractor" in file.parts} <= {".safetensors", ".json", ".txt", ".jinja"}
    extractor = load_registered_extractor("model@champion")
    assert extractor.checkpoint.config.finetuning.name == ("head_only" if base == "merged" else "lora")
    texts = [d.text for d in registry.corpus["test"][:2]]
    served = mlflow.pyfunc.load_model(f"models:/model/{done.version}").predict(texts)
    expected = extractor.annotate([Document(f"text-{i}", text) for i, text in enumerate(texts, start=1)])
    assert [json.loads(row) for row in served] == [annotations_to_json(document) for document in expected]


@pytest.mark.parametrize("base", ["whole", "merged"])
def test_a_promotion_holds_one_model_at_a_time(registry: Registry, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote()  # the champion, which is measured again
    live: weakref.WeakSet[ExtractionModel] = weakref.WeakSet()
    counts: list[int] = []
    create = ExtractionModel.__init__

    def count(self: ExtractionModel, *args: Any, **options: Any) -> None:
        counts.append(len(live))
        create(self, *args, **options)
        live.add(self)

    monkeypatch.setattr(ExtractionModel, "__init__", count)
    registry.promote(base=base, trial=1)
    # A model is merged from another one, and read again. Candidate and champion are then measured.
    assert counts == ([0, 1, 0, 0, 0] if base == "merged" else [0, 0, 0])
    assert len(live) == 0


def test_a_qlora_model_is_promoted_and_lists_bitsandbytes(
    tmp_path: Path, corpus: Corpus, make_config: Callable[..., TrialConfig]
) -> None:
    pytest.importorskip("bitsandbytes")
    qlora = ComponentChoice(name="qlora", parameters={"rank": 4, "learning_rate": 5e-3})
    config = make_config(finetuning=qlora, epochs=1)
    train(config, corpus, folder=tmp_path / "trial")
    registry = Registry(tmp_path / "home", corpus, tmp_path / "trial" / "best", config)
    assert registry.promote().promoted
    assert any(r.startswith("bitsandbytes==") for r in list_requirements("qlora"))
    assert "bitsandbytes" in (fetch_model_files("model/1") / "requirements.txt").read_text()


def test_a_backbone_from_scratch_cannot_be_pinned(registry: Registry) -> None:
    with pytest.raises(InputError, match="--pin: backbone 'tiny' is randomly initialized and has no files to pin"):
        registry.promote(base="pinned")
    assert registry.client.search_model_versions("name = 'model'") == []


def test_a_pinned_model_rejects_a_backbone_with_other_weights(
    tmp_path: Path, corpus: Corpus, make_config: Callable[..., TrialConfig], trained: Any
) -> None:
    from clinie_core.backbones.tokenizer import load_tokenizer
    from clinie_core.backbones.weights import load_model
    from clinie_core.config import BackboneSource

    _, (config, _) = trained
    backbone = tmp_path / "backbone"
    load_model(config.backbone, seed=1).save_pretrained(backbone)
    load_tokenizer(config.backbone).save_pretrained(backbone)
    pinned = make_config(backbone=BackboneSource(name="mine", folder=str(backbone)), epochs=1)
    pinned = pinned.model_copy(update={"finetuning": config.finetuning})
    train(pinned, corpus, folder=tmp_path / "trial")
    registry = Registry(tmp_path / "home", corpus, tmp_path / "trial" / "best", pinned)
    done = registry.promote(base="pinned")
    assert done.promoted
    size = sum(f.stat().st_size for f in (fetch_model_files("model/1") / "artifacts").rglob("*") if f.is_file())
    assert size < sum(f.stat().st_size for f in backbone.rglob("*"))
    load_model(config.backbone, seed=2).save_pretrained(backbone)
    with pytest.raises(InputError, match=r"sha256 of model\.safetensors is"):
        load_registered_extractor("model@champion")


def test_a_model_that_predicts_differently_is_not_promoted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from clinie_core.inference.extractor import Extractor

    save = Extractor.save

    def lossy(self: Extractor, folder: Path) -> None:
        save(self, folder)
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        save_file({k: v * 3 + 1 for k, v in weights.items()}, folder / "model.safetensors")

    monkeypatch.setattr(Extractor, "save", lossy)
    with pytest.raises(PredictionsDiffer, match=r"predicts differently from the trained model in \d+ of"):
        registry.promote()
    assert registry.history.find_champion() is None
    assert "read" not in registry.kinds()  # the test split was not touched


def test_a_model_is_copied_to_another_registry_once(registry: Registry, tmp_path: Path) -> None:
    registry.promote()
    expected = load_registered_extractor("model@champion").predict([registry.corpus["test"][0].text])
    target = Home(tmp_path / "there")
    target.root.mkdir()
    there = Home(target.root, target.tracking_uri)
    version = copy_model(registry.home, there, "model@champion", "model")
    assert copy_model(registry.home, there, "model@champion", "model") == version
    client = connect(there)
    copied = client.get_model_version_by_alias("model", "champion")
    assert str(copied.version) == version
    assert copied.tags["clinie.study"] == "study"
    assert "Strict F1 on test" in copied.description
    history = History(client, "model")
    assert [entry.kind for entry in history.read_entries()] == ["copied"]
    assert history.find_faults() == []
    shutil.rmtree(tmp_path / "artifacts")  # the copy does not depend on the source registry
    note = registry.corpus["test"][0].text
    assert load_registered_extractor("model@champion").predict([note]) == expected
