"""BioNLP shared task standoff: a text with entities in ``NAME.a1`` and events and relations in ``NAME.a2``.

Source: https://2011.bionlp-st.org/home/file-formats and the shared tasks of 2009 to 2019. The lines are those of
brat and are parsed by :mod:`clinie_core.data.corpora.brat`. A normalization can name its parts, as in
``N1 NCBI_Taxonomy Annotation:T1 Referent:562``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.corpus_format import StandoffFormat
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem

__all__ = ["BioNlp"]

NAMED_REFERENCE = re.compile(r"(N[0-9]+)\t(\S+) Annotation:(\S+) Referent:(.+)")
TEXT, ENTITIES, EVENTS = ".txt", ".a1", ".a2"


class BioNlp(StandoffFormat):
    """Folders of ``.txt``, ``.a1`` and ``.a2`` files; both annotation files are optional."""

    example: ClassVar[str] = "NAME.txt with NAME.a1 and NAME.a2 beside it"
    suffixes: ClassVar[tuple[str, ...]] = (TEXT, ENTITIES, EVENTS)

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`; the files share their ids and are parsed as one."""
        parts = {suffix: files.get(suffix, "").removesuffix("\n") for suffix in (ENTITIES, EVENTS)}
        lines = [NAMED_REFERENCE.sub(r"\1\tReference \3 \2:\4", line) for p in parts.values() for line in p.split("\n")]
        joint = where[ENTITIES]
        brat = Brat(self.options)
        first = parts[ENTITIES].count("\n") + 1
        try:
            return brat.parse(name, {TEXT: where[TEXT], ".ann": joint}, {TEXT: files[TEXT], ".ann": "\n".join(lines)})
        except InputError as error:
            raise InputError([_locate(p, where, first) for p in error.problems]) from None
        finally:
            self._notices += [_locate(notice, where, first) for notice in brat.take_notices()]

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`; all concepts, including triggers of events, are in the ``.a1`` file."""
        content = Brat().render(document)
        lines = content[".ann"].splitlines(keepends=True)
        return {
            TEXT: content[TEXT],
            ENTITIES: "".join(line for line in lines if line.startswith("T")),
            EVENTS: "".join(line for line in lines if not line.startswith("T")),
        }


def _locate(problem: Problem, where: Mapping[str, str], first: int) -> Problem:
    """Return a problem of the joint lines with its place in the ``.a1`` or ``.a2`` file.

    Args:
        problem: The problem.
        where: Names of the files by suffix.
        first: Number of lines that are in the ``.a1`` file.
    """
    number = problem.where.removeprefix(f"{where[ENTITIES]}:")
    if not number.isdecimal() or int(number) <= first:
        return problem
    return replace(problem, where=f"{where[EVENTS]}:{int(number) - first}")
