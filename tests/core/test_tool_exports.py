"""Exports of annotation tools, each tested with a small file in the layout that the tool writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Attribute, Document, Normalization, Note, Relation
from clinie_core.errors import InputError, Problem
from tests.corpora import list_mentions

TEXT = "\U0001f600 Given 5 mg warfarin; no chest pain."
"""An emoji precedes all concepts; in UTF-16 they are shifted by one."""


def read(format_: str, folder: Path, content: Any, suffix: str = "json") -> tuple[Document, ...]:
    """Write one file and read it; a list of rows is written as lines if the suffix is ``jsonl``."""
    if suffix == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in content)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"export.{suffix}").write_text(text, encoding="utf-8", newline="")
    return FORMATS.load(format_)().read_all(folder)


def fail_to_read(format_: str, folder: Path, content: Any, suffix: str = "json") -> list[str]:
    """Return the lines of the error that a file results in."""
    with pytest.raises(InputError) as caught:
        read(format_, folder, content, suffix)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder / 'export'}.{suffix}:") for line in lines)
    assert "warfarin" not in str(caught.value)
    return lines


def locate(mention: str, *, shift: int = 0) -> dict[str, int]:
    at = TEXT.index(mention) + shift
    return {"start": at, "end": at + len(mention)}


def region(id_: str, mention: str, label: str, *, shift: int = 0) -> dict[str, Any]:
    value = {**locate(mention, shift=shift), "text": mention, "labels": [label]}
    return {"id": id_, "from_name": "label", "to_name": "text", "type": "labels", "origin": "manual", "value": value}


def task(*results: dict[str, Any], **fields: Any) -> dict[str, Any]:
    annotation = {"id": 9, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": [*results]}
    rest = {"id": 4, "data": {"text": TEXT, "ward": "B"}, "predictions": [], "project": 2}
    return rest | {"annotations": [annotation]} | fields


class TestLabelStudio:
    @pytest.mark.parametrize("shift", [0, 1], ids=["code points", "utf-16"])
    def test_regions_relations_and_properties_are_read(self, tmp_path: Path, shift: int) -> None:
        pain = region("b", "chest pain", "Problem", shift=shift)
        choice = pain | {"from_name": "assertion", "type": "choices"}
        choice["value"] = {**locate("chest pain", shift=shift), "text": "chest pain", "choices": ["absent"]}
        comment = pain | {"from_name": "comment", "type": "textarea"}
        comment["value"] = {**locate("chest pain", shift=shift), "text": ["unsure"]}
        whole = {"id": "z", "from_name": "quality", "to_name": "text", "type": "choices", "value": {"choices": ["ok"]}}
        link = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "left", "labels": ["treats"]}
        drug = region("a", "warfarin", "Drug", shift=shift) | {"meta": {"text": ["check dose"]}}
        (document,) = read("label_studio", tmp_path, [task(drug, pain, choice, comment, whole, link)])
        assert document.id == "4"
        assert list_mentions(document) == [("Drug", "warfarin"), ("Problem", "chest pain")]
        assert document.relations == (Relation("R1", "treats", "b", "a"),)
        assert document.attributes == (Attribute("A1", "assertion", "b", "absent"),)
        assert document.notes == (Note("N1", "comment", "a", "check dose"), Note("N2", "comment", "b", "unsure"))
        assert document.metadata == {"ward": "B", "quality": "ok"}
        assert not count_differences(document, FORMATS.load("label_studio")().round_trip(document))

    def test_the_minimal_export_is_read(self, tmp_path: Path) -> None:
        labels = [{**locate("warfarin"), "text": "warfarin", "labels": ["Drug"]}]
        sure = [{**locate("warfarin"), "text": "warfarin", "choices": ["high"]}]
        row = {"id": 7, "text": TEXT, "label": labels, "certainty": sure, "annotator": 1, "annotation_id": 3}
        unlabelled = {"id": 8, "text": TEXT, "annotator": 1, "annotation_id": 4, "lead_time": 2.5}
        first, second = read("label_studio", tmp_path, [row, unlabelled])
        assert (first.id, list_mentions(first)) == ("7", [("Drug", "warfarin")])
        assert [(a.type, a.value) for a in first.attributes] == [("certainty", "high")]
        assert (second.id, second.concepts, second.metadata) == ("8", (), {})

    def test_labels_of_one_region_are_separate_concepts(self, tmp_path: Path) -> None:
        both = region("a", "warfarin", "Drug")
        both["value"]["labels"] = ["Drug", "Cause"]
        (document,) = read("label_studio", tmp_path, [task(both, region("a", "warfarin", "Trade name"))])
        assert sorted(list_mentions(document)) == [
            ("Cause", "warfarin"),
            ("Drug", "warfarin"),
            ("Trade name", "warfarin"),
        ]

    def test_the_ground_truth_is_read_if_annotations_differ(self, tmp_path: Path) -> None:
        drug, dose = region("a", "warfarin", "Drug"), region("b", "5 mg", "Dose")
        annotations: list[dict[str, Any]] = [{"result": [drug]}, {"result": [dose], "ground_truth": True}]
        (document,) = read("label_studio", tmp_path, [task(annotations=annotations)])
        assert list_mentions(document) == [("Dose", "5 mg")]
        annotations[1]["ground_truth"] = False
        (line,) = fail_to_read("label_studio", tmp_path, [task(annotations=annotations)])
        assert "2 annotations that differ" in line

    @pytest.mark.parametrize(
        ("broken", "expected"),
        [
            (task(region("a", "warfarin", "")), "a: a region without a label"),
            (task(region("a", "warfarin", "Drug", shift=3)), "a: the mention differs from the text at its offsets"),
            (task(region("a", "warfarin", "Drug", shift=99)), "a: offsets 112:120 lie outside the text"),
            (task({"type": "relation", "from_id": "a", "to_id": "b"}), "a relation refers to a, which is not"),
            (task({"id": "a", "type": "rectanglelabels"}), "a result of the unsupported type rectanglelabels"),
            (task(annotations=[{"was_cancelled": True}]), "all annotations of the task are cancelled"),
            ({"id": 1, "data": {"text": TEXT}}, "no annotations"),
            ({"id": 1, "text": TEXT}, "neither annotations nor labels"),
            (task(data={"note": TEXT, "summary": TEXT}), "2 fields can be the text"),
        ],
    )
    def test_each_problem_is_one_line_with_its_place(self, tmp_path: Path, broken: Any, expected: str) -> None:
        content = f"[{json.dumps(task())},\n{json.dumps(broken)}]"
        (line,) = fail_to_read("label_studio", tmp_path, content)
        assert line.startswith(f"{tmp_path / 'export.json'}:2: task 2: {expected}")


def triple(mention: str, label: str, *, shift: int = 0) -> list[Any]:
    return [*locate(mention, shift=shift).values(), label]


class TestDoccano:
    @pytest.mark.parametrize("field", ["label", "labels", "entities"])
    @pytest.mark.parametrize("shift", [0, 1], ids=["code points", "utf-16"])
    def test_lists_of_offsets_and_label_are_read(self, tmp_path: Path, field: str, shift: int) -> None:
        labels = [triple("warfarin", "Drug", shift=shift), triple("chest pain", "Problem", shift=shift)]
        row = {"id": 3, "text": TEXT, field: labels, "ward": "B", "Comments": []}
        (document,) = read("doccano", tmp_path, [row], "jsonl")
        assert (document.id, document.metadata) == ("3", {"ward": "B"})
        assert list_mentions(document) == [("Drug", "warfarin"), ("Problem", "chest pain")]
        assert not count_differences(document, FORMATS.load("doccano")().round_trip(document))

    def test_entities_with_relations_are_read(self, tmp_path: Path) -> None:
        offsets = {m: {f"{key}_offset": value for key, value in locate(m).items()} for m in ("5 mg", "warfarin")}
        entities = [{"id": 11, "label": "Dose", **offsets["5 mg"]}, {"id": 12, "label": "Drug", **offsets["warfarin"]}]
        relations = [{"id": 1, "from_id": 11, "to_id": 12, "type": "dose of"}]
        row = {"id": 3, "text": TEXT, "entities": entities, "relations": relations, "Comments": []}
        (document,) = read("doccano", tmp_path, [row], "jsonl")
        assert list_mentions(document) == [("Dose", "5 mg"), ("Drug", "warfarin")]
        assert document.relations == (Relation("R1", "dose of", "11", "12"),)
        assert not count_differences(document, FORMATS.load("doccano")().round_trip(document))

    def test_the_unit_of_ambiguous_offsets_is_asked_for(self, tmp_path: Path) -> None:
        row: dict[str, Any] = {"text": "\U0001f600 ----", "label": [[4, 5, "Dash"]]}
        (line,) = fail_to_read("doccano", tmp_path, [row], "jsonl")
        assert "code points or UTF-16 units" in line
        starts = {}
        for unit in ("code points", "utf-16"):
            ((concept,),) = (d.concepts for d in read("doccano", tmp_path, [row | {"offset_unit": unit}], "jsonl"))
            starts[unit] = concept.start
        assert starts == {"code points": 4, "utf-16": 3}

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"label": ["sick"]}, "label 1 has no offsets or no type"),
            ({"label": [[0, 1, ""]]}, "label 1 has no offsets or no type"),
            ({"label": [[900, 901, "Drug"]], "offset_unit": "utf-16"}, "T1: offsets 38:38 lie outside the text"),
            ({"label": [], "relations": [{"from_id": 1, "to_id": 2, "type": "x"}]}, "R1 refers to 1, which does not"),
            ({}, "no label; entities, label, labels; export as JSONL"),
        ],
    )
    def test_each_problem_is_one_line_with_its_place(self, tmp_path: Path, fields: Any, expected: str) -> None:
        rows = [{"text": TEXT, "label": []}, {"text": TEXT, **fields}]
        lines = fail_to_read("doccano", tmp_path, rows, "jsonl")
        assert lines[0].startswith(f"{tmp_path / 'export.jsonl'}:2: {expected}")

    def test_an_array_of_documents_is_read(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [{"text": TEXT, "label": [triple("warfarin", "Drug")]}] * 2
        documents = read("doccano", tmp_path, rows, "json")
        assert [(d.id, list_mentions(d)) for d in documents] == [
            ("export-1", [("Drug", "warfarin")]),
            ("export-2", [("Drug", "warfarin")]),
        ]
        wrong = {"label": [[0, 99, "X"]], "offset_unit": "code points"}
        content = f"[{json.dumps(rows[0])},\n{json.dumps(rows[0] | wrong)}]"
        (line,) = fail_to_read("doccano", tmp_path, content)
        assert line.startswith(f"{tmp_path / 'export.json'}:2: item 2: T1: offsets 0:99 lie outside the text")


def spacy_span(mention: str, label: str, **fields: Any) -> dict[str, Any]:
    return {**locate(mention), "label": label, "token_start": 1, "token_end": 1, **fields}


class TestSpacyJsonl:
    def test_a_prodigy_example_with_relations_is_read(self, tmp_path: Path) -> None:
        dose, drug = spacy_span("5 mg", "DOSE"), spacy_span("warfarin", "DRUG", kb_id="RxNorm:11289")
        relation = {"head": 2, "child": 3, "head_span": dose, "child_span": drug, "label": "DOSE_OF", "color": "#ffd"}
        row = {"text": TEXT, "meta": {"ward": "B"}, "_input_hash": -5, "_task_hash": 7, "_view_id": "relations"}
        row |= {"tokens": [], "spans": [dose, drug], "relations": [relation], "answer": "accept"}
        (document,) = read("spacy_jsonl", tmp_path, [row], "jsonl")
        assert (document.id, document.metadata) == ("export-1", {"ward": "B"})
        assert list_mentions(document) == [("DOSE", "5 mg"), ("DRUG", "warfarin")]
        assert document.relations == (Relation("R1", "DOSE_OF", "T1", "T2"),)
        assert document.normalizations == (Normalization("N1", "T2", "RxNorm", "11289"),)
        assert not count_differences(document, FORMATS.load("spacy_jsonl")().round_trip(document))

    def test_an_array_of_pairs_of_text_and_entities_is_read(self, tmp_path: Path) -> None:
        pair = [TEXT, {"entities": [triple("warfarin", "DRUG")]}]
        documents = read("spacy_jsonl", tmp_path, [pair, pair])
        assert [list_mentions(d) for d in documents] == [[("DRUG", "warfarin")]] * 2

    def test_an_accepted_text_without_spans_has_no_concepts(self, tmp_path: Path) -> None:
        rows = [{"text": TEXT, "meta": {"id": 17}, "answer": "accept"}, {"text": TEXT, "spans": []}]
        documents = read("spacy_jsonl", tmp_path, rows, "jsonl")
        assert [(d.id, d.concepts) for d in documents] == [("export-1", ()), ("export-2", ())]
        assert documents[0].metadata == {"id": "17"}

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"spans": [], "answer": "reject"}, "an example that was not accepted"),
            ({"spans": [{"start": 0, "end": 1}]}, "spans.0.label: Field required"),
            ({"spans": [{"start": 0, "end": 1, "label": ""}]}, "spans.0.label: String should have at least 1"),
            ({"spans": [{"start": 3, "end": 99, "label": "X"}]}, "T1: offsets 3:99 lie outside the text"),
            ({}, "no spans"),
            (
                {
                    "spans": [],
                    "relations": [
                        {"head_span": spacy_span("5 mg", "D"), "child_span": spacy_span("5 mg", "D"), "label": "x"}
                    ],
                },
                "relation 1 refers to a span that does not exist",
            ),
        ],
    )
    def test_each_problem_is_one_line_with_its_place(self, tmp_path: Path, fields: Any, expected: str) -> None:
        rows = [{"text": TEXT, "spans": []}, {"text": TEXT, **fields}]
        (line,) = fail_to_read("spacy_jsonl", tmp_path, rows, "jsonl")
        assert line.startswith(f"{tmp_path / 'export.jsonl'}:2: {expected}")


def hf_row(**fields: Any) -> dict[str, Any]:
    return {"tokens": ["\U0001f600", "no", "chest", "pain"], "ner_tags": ["O", "O", "B-Problem", "I-Problem"]} | fields


class TestHfJsonl:
    @pytest.mark.parametrize("field", ["ner_tags", "tags", "labels"])
    def test_tags_that_are_strings_are_read(self, tmp_path: Path, field: str) -> None:
        row = hf_row(id="12", ward="B")
        row[field] = row.pop("ner_tags")
        (document,) = read("hf_jsonl", tmp_path, [row], "jsonl")
        assert (document.id, document.text) == ("export-12", "\U0001f600 no chest pain")
        assert list_mentions(document) == [("Problem", "chest pain")]
        assert document.metadata["ward"] == "B"
        assert not count_differences(document, FORMATS.load("hf_jsonl")().round_trip(document))

    def test_tags_that_are_numbers_need_names(self, tmp_path: Path) -> None:
        names = {"names": ["O", "B-Problem", "I-Problem"]}
        row = hf_row(ner_tags=[0, 0, 1, 2])
        for rows in ([names, row, row], [row | names, row]):
            documents = read("hf_jsonl", tmp_path, rows, "jsonl")
            assert [list_mentions(d) for d in documents] == [[("Problem", "chest pain")]] * 2
        (line,) = fail_to_read("hf_jsonl", tmp_path, [row], "jsonl")
        assert "tags are numbers without names" in line
        assert 'write a first line {"names": ["O", "B-Drug", ...]}' in line

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"ner_tags": ["O"]}, "4 tokens and 1 tags"),
            ({"ner_tags": [0, 0, 1, 9], "names": ["O", "B-X"]}, "tag 9 has no name; 0 to 1"),
            ({"ner_tags": [None] * 4}, "a tag is neither a string nor a number"),
            ({"tokens": ["a b", "", "c", "d"]}, "a token is empty or contains white space"),
            ({"ner_tags": None}, "no tokens or no tags"),
        ],
    )
    def test_each_problem_is_one_line_with_its_place(self, tmp_path: Path, fields: Any, expected: str) -> None:
        (line,) = fail_to_read("hf_jsonl", tmp_path, [hf_row(), hf_row(**fields)], "jsonl")
        assert line.startswith(f"{tmp_path / 'export.jsonl'}:2: {expected}")


def test_faulty_annotations_are_skipped_and_listed_on_request(tmp_path: Path) -> None:
    regions = (region("a", "warfarin", "Drug"), region("b", "5 mg", "Dose", shift=2))
    link = {"type": "relation", "from_id": "b", "to_id": "a", "labels": ["dose of"]}
    rows = {
        "label_studio": [task(*regions, link)],
        "doccano": {
            "text": TEXT,
            "label": [triple("warfarin", "Drug"), [30, 99, "Dose"]],
            "offset_unit": "code points",
        },
        "spacy_jsonl": {"text": TEXT, "spans": [spacy_span("warfarin", "Drug"), spacy_span("5 mg", "Dose", text="x")]},
    }
    for name, row in rows.items():
        folder = tmp_path / name
        folder.mkdir()
        suffix = ".json" if name == "label_studio" else ".jsonl"
        (folder / f"export{suffix}").write_text(json.dumps(row))
        items = list(FORMATS.load(name)(ReadingOptions(on_error="skip")).read(folder))
        (document,) = (item for item in items if isinstance(item, Document))
        assert list_mentions(document) == [("Drug", "warfarin")]
        assert {item.severity for item in items if isinstance(item, Problem)} == {"skipped"}


def medcat_annotation(id_: int, mention: str, **fields: Any) -> dict[str, Any]:
    judgement = {"validated": True, "correct": True, "deleted": False, "killed": False, "irrelevant": False}
    link = {"cui": "387457003", "value": mention, "user": "ann", "acc": 1.0, "alternative": False, "meta_anns": {}}
    return {"id": id_, **locate(mention), **link, **judgement} | fields


def medcat_export(*annotations: dict[str, Any], **fields: Any) -> str:
    document = {"id": 5, "name": "note-5", "text": TEXT, "last_modified": "2024-01-01", "annotations": annotations}
    first = {**document, "name": "note-4", "annotations": []}
    project = {"name": "P", "id": 1, "cuis": "387457003", "documents": [first]}
    return json.dumps({"projects": [project, {"name": "Q", "documents": [document | fields]}]}, indent=1)


class TestMedCat:
    @pytest.mark.parametrize("shift", [0, 1], ids=["code points", "utf-16"])
    def test_validated_annotations_are_read(self, tmp_path: Path, shift: int) -> None:
        meta = {"Presence": {"name": "Presence", "value": "False", "acc": 1, "validated": True}}
        content = medcat_export(
            medcat_annotation(1, "warfarin", **locate("warfarin", shift=shift), type_ids=["T121"]),
            medcat_annotation(2, "chest pain", **locate("chest pain", shift=shift), meta_anns=meta, cui="SCT:29857009"),
            medcat_annotation(3, "no", **locate("no", shift=shift), deleted=True),
            medcat_annotation(4, "mg", **locate("mg", shift=shift), validated=False),
            relations=[{"id": 1, "start_entity": 1, "end_entity": 2, "relation": "treats", "validated": True}],
        )
        empty, document = read("medcat", tmp_path, content)
        assert (empty.id, empty.concepts) == ("note-4", ())
        assert (document.id, document.metadata) == ("note-5", {})
        assert list_mentions(document) == [("T121", "warfarin"), ("concept", "chest pain")]
        assert document.attributes == (Attribute("A1", "Presence", "2", "False"),)
        assert [(n.target, n.database, n.reference) for n in document.normalizations] == [
            ("1", "CUI", "387457003"),
            ("2", "SCT", "29857009"),
        ]
        assert document.relations == (Relation("R1", "treats", "1", "2"),)
        assert not count_differences(document, FORMATS.load("medcat")().round_trip(document))

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"start": 16, "end": 24}, "1: the mention differs from the text at its offsets"),
            ({"start": 14, "end": 99}, "1: offsets 14:99 lie outside the text"),
            ({"start": None}, "annotations.0.start: Input should be a valid integer"),
        ],
    )
    def test_each_problem_is_one_line_with_its_place(self, tmp_path: Path, fields: Any, expected: str) -> None:
        content = medcat_export(medcat_annotation(1, "warfarin", **fields))
        (line,) = fail_to_read("medcat", tmp_path, content)
        at = content[: content.rindex('"id": 5')].count("\n")
        assert line.startswith(f"{tmp_path / 'export.json'}:{at}: document 2: {expected}")
