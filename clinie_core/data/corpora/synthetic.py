"""Generator of a seeded synthetic corpus of clinical notes, for demonstrations and tests.

The notes are discharge summaries, radiology reports and social histories with concepts, relations and
attributes. The type of a word depends on its context: a measured drug is a test, and a symptom that a drug
causes is an ADE. A relative's disease is not a concept. Names are composed, so a lookup table does not
solve the task. No text comes from real notes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from clinie_core.data.corpora import synthetic_words as words
from clinie_core.data.document import Attribute, Concept, Document, Relation, Span

__all__ = ["SPLIT_SHARES", "generate_document", "generate_splits"]

SPLIT_SHARES = {"train": 0.7, "dev": 0.15, "test": 0.15}


class _NoteWriter:
    """A note under construction: text, and annotations with offsets into it."""

    def __init__(self) -> None:
        self.text = ""
        self.concepts: list[Concept] = []
        self.relations: list[Relation] = []
        self.attributes: list[Attribute] = []

    def add_text(self, text: str) -> None:
        self.text += text

    def add_concept(self, type_: str, text: str) -> str:
        """Add text that is a concept; return the concept's id."""
        id_ = f"T{len(self.concepts) + 1}"
        self.concepts.append(Concept(id_, type_, (Span(len(self.text), len(self.text) + len(text)),)))
        self.text += text
        return id_

    def add_relation(self, type_: str, head: str, tail: str) -> None:
        self.relations.append(Relation(f"R{len(self.relations) + 1}", type_, head, tail))

    def add_attribute(self, type_: str, target: str, value: str | None = None) -> None:
        self.attributes.append(Attribute(f"A{len(self.attributes) + 1}", type_, target, value))


_Draw = random.Random
_Sentence = Callable[[_NoteWriter, _Draw], None]


def _draw_dosage(draw: _Draw) -> str:
    amount = draw.choice(("2.5", "5", "10", "12.5", "20", "25", "40", "75", "81", "100", "250", "500", "1,000"))
    return amount + draw.choice((" mg", "mg", " mcg", " mEq", " units", " mg/kg"))


def _draw_frequency(draw: _Draw) -> str:
    return draw.choice(
        (
            "daily,once daily,twice a day,BID,b.i.d.,TID,q6h,q8h,every 6 hours,every other day,at bedtime,qhs,"
            "prn,weekly"
        ).split(",")
    )


def _write_medication(note: _NoteWriter, draw: _Draw) -> str:
    """Write a drug, usually with dosage and frequency; return the drug's id."""
    drug = note.add_concept("Drug", words.draw_drug(draw))
    if draw.random() < 0.85:
        note.add_text(" ")
        note.add_relation("Dosage-Drug", note.add_concept("Dosage", _draw_dosage(draw)), drug)
        note.add_text(draw.choice(("", " PO", " by mouth", " IV")))
    if draw.random() < 0.8:
        note.add_text(" ")
        note.add_relation("Frequency-Drug", note.add_concept("Frequency", _draw_frequency(draw)), drug)
    return drug


def _write_presentation(note: _NoteWriter, draw: _Draw) -> None:
    age = draw.randint(19, 93)
    who = draw.choice(("man", "woman", "gentleman", "lady", "M", "F", "male", "female"))
    note.add_text(f"{age} {draw.choice(('year old', 'yo', 'y/o', '-year-old'))} {who} ")
    note.add_text(draw.choice(("with a history of ", "w/ PMH of ", "with h/o ", "known to have ")))
    for i in range(draw.randint(1, 3)):
        note.add_text(", " if i else "")
        note.add_concept("Problem", words.draw_problem(draw))
    note.add_text(draw.choice((" who presents with ", " admitted for ", " p/w ", " here for evaluation of ")))
    note.add_concept("Problem", words.draw_problem(draw))
    note.add_text(".")


def _write_negation(note: _NoteWriter, draw: _Draw) -> None:
    note.add_text(draw.choice(("Denies ", "Patient denies any ", "No ", "Negative for ", "There was no evidence of ")))
    for i in range(draw.randint(1, 3)):
        note.add_text(draw.choice((", ", " or ")) if i else "")
        note.add_attribute("Negation", note.add_concept("Problem", words.draw_problem(draw)))
    note.add_text(".")


def _write_prescription(note: _NoteWriter, draw: _Draw) -> None:
    note.add_text(
        draw.choice(("Started on ", "Continue ", "She takes ", "Home medications include ", "Discharged on ", "Given "))
    )
    for i in range(draw.randint(1, 3)):
        note.add_text(draw.choice((", ", " and ", "; ")) if i else "")
        _write_medication(note, draw)
    if draw.random() < 0.5:
        note.add_text(draw.choice((" for ", " to treat ", " given her ")))
        note.add_concept("Problem", words.draw_problem(draw))
    note.add_text(".")


def _write_adverse_event(note: _NoteWriter, draw: _Draw) -> None:
    if draw.random() < 0.5:
        note.add_text(draw.choice(("Developed ", "Experienced ", "Course complicated by ", "Complained of ")))
        ade = note.add_concept("ADE", words.draw_reaction(draw))
        note.add_text(draw.choice((" after starting ", " thought to be due to ", " secondary to ", " while on ")))
        drug = note.add_concept("Drug", words.draw_drug(draw))
    else:
        drug = note.add_concept("Drug", words.draw_drug(draw))
        note.add_text(draw.choice((" was stopped because of ", " caused ", " discontinued for ", " held given ")))
        ade = note.add_concept("ADE", words.draw_reaction(draw))
    note.add_relation("ADE-Drug", ade, drug)
    note.add_text(".")


def _write_lab_results(note: _NoteWriter, draw: _Draw) -> None:
    note.add_text(draw.choice(("Labs notable for ", "On admission ", "Repeat ", "Trended ", "Today ")))
    for i in range(draw.randint(1, 3)):
        note.add_text(draw.choice((", ", " and ")) if i else "")
        note.add_concept("Test", words.draw_lab_test(draw))
        verb = draw.choice((" ", " of ", " was ", " up to ", " improved to "))
        note.add_text(f"{verb}{draw.choice(('0.8', '1.4', '4.1', '7.2', '11', '13.5', '138', '220', '5'))}")
    note.add_text(".")


def _write_examination(note: _NoteWriter, draw: _Draw) -> None:
    test = note.add_concept("Test", words.draw_study(draw))
    note.add_text(draw.choice((" showed ", " demonstrated ", " was notable for ", " with ", ": ", " revealed ")))
    negated = draw.random() < 0.3
    note.add_text(draw.choice(("no ", "no evidence of ")) if negated else "")
    for i in range(draw.randint(1, 2)):
        note.add_text(" and " if i else "")
        finding = note.add_concept("Problem", words.draw_finding(draw))
        note.add_relation("Test-Problem", test, finding)
        if negated:
            note.add_attribute("Negation", finding)
    note.add_text(".")


def _write_tobacco_use(note: _NoteWriter, draw: _Draw) -> None:
    kind = draw.choice(("current", "past", "none"))
    phrases = {
        "current": ("smokes {n} ppd", "current smoker", "{n} cigarettes daily", "vapes daily", "chews tobacco"),
        "past": (
            "quit smoking in {y}",
            "former smoker",
            "{n} pack-year history",
            "ex-smoker",
            "stopped smoking {n} years ago",
        ),
        "none": ("never smoker", "no tobacco use", "denies smoking", "nonsmoker", "lifelong non-smoker"),
    }
    phrase = draw.choice(phrases[kind]).format(n=draw.randint(2, 40), y=draw.randint(1978, 2021))
    note.add_text(draw.choice(("Tobacco: ", "Social: ", "He is a ", "Patient ", "")))
    note.add_attribute("Status", note.add_concept("Tobacco", phrase), kind)
    note.add_text(draw.choice((".", ", retired teacher.", ", lives alone.", "; occasional wine.")))


def _write_distractor(note: _NoteWriter, draw: _Draw) -> None:
    """Write a sentence without concepts that contains words of concepts."""
    note.add_text(
        draw.choice(
            (
                f"Mother had {words.draw_problem(draw)} and father had {words.draw_problem(draw)}.",
                f"Family history of {words.draw_problem(draw)}.",
                f"Handout on {words.draw_problem(draw)} was given.",
                "Smoke detectors at home are working.",
                "Her husband is a smoker.",
                "Feels cold at night but sleeps well.",
                "Goes for daily walks and keeps up with daily activities.",
                f"Works at a pharmacy that compounds {words.draw_drug(draw)}.",
                "Ambulates with a walker; lives on the 5th floor.",
                f"Return if you notice {words.draw_problem(draw)}.",
                "Weekly visits by the home nurse were arranged.",
                f"Discussed screening for {words.draw_problem(draw)} with the family.",
            )
        )
    )


_SECTIONS: dict[str, tuple[tuple[str, tuple[_Sentence, ...], int], ...]] = {
    "discharge": (
        ("HISTORY OF PRESENT ILLNESS:\n", (_write_presentation, _write_negation, _write_lab_results), 3),
        (
            "HOSPITAL COURSE:\n",
            (
                _write_adverse_event,
                _write_prescription,
                _write_adverse_event,
                _write_lab_results,
                _write_examination,
                _write_distractor,
            ),
            4,
        ),
        ("DISCHARGE MEDICATIONS:\n", (_write_prescription, _write_distractor), 2),
    ),
    "radiology": (
        ("INDICATION: ", (_write_presentation,), 1),
        ("FINDINGS: ", (_write_examination, _write_negation), 3),
        ("IMPRESSION: ", (_write_examination, _write_distractor), 2),
    ),
    "social": (
        ("SOCIAL HISTORY:\n", (_write_tobacco_use, _write_distractor, _write_tobacco_use), 3),
        ("PLAN: ", (_write_prescription, _write_distractor, _write_adverse_event), 2),
    ),
}


def generate_document(id_: str, kind: str, draw: random.Random) -> Document:
    """Generate one note.

    Args:
        id_: The document's id.
        kind: ``discharge``, ``radiology`` or ``social``.
        draw: Random number generator.
    """
    note = _NoteWriter()
    for title, sentences, most in _SECTIONS[kind]:
        note.add_text(title)
        for i in range(draw.randint(1, most)):
            note.add_text(draw.choice((" ", " ", "\n")) if i else "")
            (sentences[0] if i == 0 else draw.choice(sentences[1:] or sentences))(note, draw)
        note.add_text("\n\n" if draw.random() < 0.8 else "\n")
    return Document(id_, note.text, tuple(note.concepts), tuple(note.relations), tuple(note.attributes))


def generate_splits(documents: int, seed: int) -> dict[str, Sequence[Document]]:
    """Generate a corpus.

    Args:
        documents: Total number of notes, at least 10.
        seed: Seed of the generator; equal seeds give equal corpora.

    Returns:
        Notes by split: about 70% train, 15% dev and 15% test.

    Raises:
        ValueError: If ``documents`` is less than 10.
    """
    if documents < 10:
        raise ValueError(f"a synthetic corpus needs at least 10 documents, found {documents}")
    draw = random.Random(seed)
    kinds = list(_SECTIONS)
    notes = [
        generate_document(f"{kind}-{i:04d}", kind, draw) for i in range(documents) for kind in (kinds[i % len(kinds)],)
    ]
    draw.shuffle(notes)
    dev = round(documents * SPLIT_SHARES["dev"])
    test = round(documents * SPLIT_SHARES["test"])
    return {"dev": notes[:dev], "test": notes[dev : dev + test], "train": notes[dev + test :]}
