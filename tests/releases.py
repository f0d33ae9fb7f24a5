"""Invented documents in the folders of released corpora, for tests of presets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["RELEASES", "write_file"]

TRAINING, REFERENCE, TEXTS = "concept_assertion_relation_training_data", "reference_standard_for_test_data", "test_data"
ADE_TEXT = "Started on warfarin 5 mg PO daily for\n AF. Rash from penicillin.\n"
ADE_ANNOTATIONS = (
    "T1\tDrug 11 19\twarfarin\nT2\tStrength 20 24\t5 mg\nR1\tStrength-Drug Arg1:T2 Arg2:T1\n"
    "T3\tRoute 25 27\tPO\nR2\tRoute-Drug Arg1:T3 Arg2:T1\nT4\tFrequency 28 33\tdaily\n"
    "T5\tReason 34 37;39 41\tfor AF\nT6\tADE 43 47\tRash\nT7\tDrug 53 63\tpenicillin\nR3\tADE-Drug Arg1:T6 Arg2:T7\n"
)
SDOH_TEXT = "Smokes 1 ppd, lives with wife.\n"
SDOH_ANNOTATIONS = (
    "T1\tTobacco 0 6\tSmokes\nT2\tStatusTime 0 6\tSmokes\nT3\tAmount 7 12\t1 ppd\nE1\tTobacco:T1 Status:T2 Amount:T3\n"
    "A1\tStatusTimeVal T2 current\nT4\tLivingStatus 14 19\tlives\nT5\tStatusTime 14 19\tlives\n"
    "T6\tTypeLiving 20 29\twith wife\nE2\tLivingStatus:T4 Status:T5 Type:T6\nA2\tStatusTimeVal T5 current\n"
    "A3\tTypeLivingVal T6 with_family\n"
)
RECORD_TEXT = "He got Lasix for\npulmonary edema .\n"
RECORD_ANNOTATIONS = {
    "con": 'c="lasix" 1:2 1:2||t="treatment"\nc="pulmonary edema" 2:0 2:1||t="problem"\n',
    "rel": 'c="lasix" 1:2 1:2||r="TrAP"||c="pulmonary edema" 2:0 2:1\n',
    "ast": 'c="pulmonary edema" 2:0 2:1||t="problem"||a="present"\n',
}
ENTITIES = {
    "1": {"tokens": "Lungs", "label": "ANAT-DP", "start_ix": 2, "end_ix": 2, "relations": []},
    "2": {"tokens": "clear", "label": "OBS-DP", "start_ix": 4, "end_ix": 4, "relations": [["located_at", "1"]]},
}


def write_file(file: Path, content: str) -> None:
    """Write a file and its missing folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8", newline="")


def write_ade(root: Path, train: int = 4, test: int = 2, test_folder: str = "gold-standard-test-data") -> None:
    """Write 2018 n2c2 track 2."""
    for folder, first, count in (("training_20180910", 100035, train), (test_folder, 200035, test)):
        for number in range(first, first + count):
            write_file(root / folder / f"{number}.txt", ADE_TEXT)
            write_file(root / folder / f"{number}.ann", ADE_ANNOTATIONS)


def write_sdoh(root: Path) -> None:
    """Write 2022 n2c2 track 2 with one document of each source in each split."""
    for split in ("train", "dev", "test"):
        for source in ("mimic", "uw"):
            write_file(root / split / source / f"{split}-0001.txt", SDOH_TEXT)
            write_file(root / split / source / f"{split}-0001.ann", SDOH_ANNOTATIONS)


def write_record(name: str, texts: Path, annotations: Path, concepts: str = "concept") -> None:
    """Write a text of 2010 i2b2, and its annotations into one folder for each kind."""
    write_file(texts / f"{name}.txt", RECORD_TEXT)
    for suffix, content in RECORD_ANNOTATIONS.items():
        write_file(annotations / (concepts if suffix == "con" else suffix) / f"{name}.{suffix}", content)


def write_records(root: Path) -> None:
    """Write 2010 i2b2 with two documents of each institution, one text without annotations, and one test document."""
    for institution in ("beth", "partners"):
        for number in (1, 2):
            folder = root / TRAINING / institution
            write_record(f"record-{number}", folder / "txt", folder)
    write_file(root / TRAINING / "partners" / "unannotated" / "018636330_DH.txt", RECORD_TEXT)
    write_record("0001", root / TEXTS, root / REFERENCE, "concepts")


def write_reports(root: Path) -> None:
    """Write RadGraph with one report in each split; the test report has two annotators."""
    report = {"text": "FINAL REPORT Lungs are clear .", "data_source": "MIMIC-CXR"}
    for number, split in enumerate(("train", "dev", "test")):
        labels: Mapping[str, object] = {"entities": ENTITIES}
        if split == "test":
            labels = {"labeler_1": {"entities": ENTITIES}, "labeler_2": {"entities": {"1": ENTITIES["1"]}}}
        content = {f"p10/p1{number}/s{number}.txt": {**report, **labels, "data_split": split}}
        write_file(root / f"{split}.json", json.dumps(content))
    write_file(root / "MIMIC-CXR_graphs.json", "{}")
    write_file(root / "models" / "README.txt", "")


RELEASES: Mapping[str, Callable[[Path], None]] = {
    "n2c2-2018": write_ade,
    "n2c2-2022": write_sdoh,
    "i2b2-2010": write_records,
    "radgraph": write_reports,
}
"""Functions that write a small corpus in the layout of each preset."""
