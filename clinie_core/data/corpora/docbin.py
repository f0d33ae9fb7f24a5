"""spaCy's DocBin, the binary format of its training data, read and written by spaCy without a language model.

Source: https://spacy.io/api/docbin. A file is one compressed msgpack object, so it is read into memory at once. The
entities and the span groups of a document become concepts; an entity that is in a span group too is one concept.
The type is the label, or the name of the span group. An id of a knowledge base becomes a normalization, and the id of
an entity the attribute ``ent_id``. The document's id is in its user data. Other attributes of tokens are not read.

A file can crash spaCy if its arrays are inconsistent. Therefore its content is checked before, and only the columns
that are needed reach spaCy. The format contains no pickled objects.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import numpy as np

from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.docbin_writer import COLUMNS, ENT_ID, ID, build_doc
from clinie_core.data.corpora.extras import import_extra
from clinie_core.data.corpora.files import FileGroup
from clinie_core.data.corpora.json_lines import collect_metadata
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.spacy_jsonl import parse_link
from clinie_core.data.document import Attribute, Concept, Document, Normalization
from clinie_core.errors import InputError, Problem, fail

__all__ = ["DocBin"]

IDS = (ID, "doc_id", "document_id")
"""Keys of the user data that contain the document's id, also as the names of extension attributes."""
EXTENSION = "._."
MIN_BYTE_LIMIT, MAX_RATIO = 64 * 2**20, 200
"""Number of unpacked bytes that is allowed at any ratio, and the largest ratio above it."""
REMEDY = "write the file again by DocBin.to_disk"
ALLOWED = "the output of spaCy's DocBin.to_disk"


@dataclass(frozen=True)
class _Content:
    """Checked content of a file.

    Args:
        lengths: Number of tokens of each document.
        tokens: A column for each attribute of ``COLUMNS``.  # [tokens, columns]
        spaces: Whether a blank follows each token.  # [tokens]
        strings: Strings of the tokens and labels.
        lists: Further fields with a value for each document, by name.
    """

    lengths: list[int]
    tokens: np.ndarray[Any, Any] = field(repr=False)
    spaces: np.ndarray[Any, Any] = field(repr=False)
    strings: list[str] = field(repr=False)
    lists: Mapping[str, list[Any]] = field(repr=False)


class DocBin(StreamFormat):
    """Files of one DocBin."""

    example: ClassVar[str] = "NAME.spacy, the output of spaCy's DocBin.to_disk"
    suffix: ClassVar[str] = ".spacy"

    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read_groups`."""
        try:
            _import_spacy()
        except InputError as error:
            yield from error.problems
        else:
            yield from super().read_groups(groups)

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        spacy = _import_spacy()
        content = _read_content(stream.read(), where, spacy)
        vocab = spacy.vocab.Vocab()
        for string in content.strings:
            vocab.strings.add(string)
        _check_strings(content, vocab, where)
        at = 0
        for number, length in enumerate(content.lengths):
            place = f"{where}: document {number + 1}"
            try:
                doc = _restore(content, number, slice(at, at + length), vocab, place, spacy)
                yield place, self._build(doc, content.lists["user_data"][number], place, f"{name}-{number + 1}")
            except InputError as error:
                yield from self.skip(error.problems)
            at += length

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`; all concepts are in the span group ``sc``.

        A concept that overlaps another or begins or ends in white space is not an entity.
        """
        spacy = _import_spacy()
        vocab = spacy.vocab.Vocab()
        found = spacy.tokens.DocBin(attrs=list(COLUMNS), store_user_data=True)
        for document in documents:
            found.add(build_doc(document, vocab, spacy))
        stream.write(found.to_bytes())

    def _build(self, doc: Any, user_data: Any, where: str, name: str) -> Document:
        errors = self.collect_errors()
        fields = _read_user_data(user_data, where)
        concepts: list[Concept] = []
        normalizations: list[Normalization] = []
        attributes: list[Attribute] = []
        for label, start, end, kb_id, ent_id in _list_spans(doc, where):
            id_ = f"T{len(concepts) + 1}"
            span = errors.fit_span(where, id_, start, end, len(doc.text))
            if span is not None:
                concepts.append(Concept(id_, label, (span,)))
                if kb_id:
                    normalizations.append(parse_link(len(normalizations) + 1, id_, kb_id))
                if ent_id:
                    attributes.append(Attribute(f"A{len(attributes) + 1}", ENT_ID, id_, ent_id))
        _warn(doc, errors, where.partition(": document")[0])
        errors.raise_if_any()
        return Document(
            next((fields[key] for key in IDS if key in fields), name),
            doc.text,
            tuple(concepts),
            attributes=tuple(attributes),
            normalizations=tuple(normalizations),
            metadata={key: value for key, value in fields.items() if key not in IDS},
        )


def _import_spacy() -> Any:
    """Return the module ``spacy`` with its submodules.

    Raises:
        InputError: If spaCy is not installed.
    """
    import_extra("spacy.tokens", "spaCy", "docbin", "spacy")
    return import_extra("spacy", "spaCy", "docbin", "spacy")


def _read_content(data: bytes, where: str, spacy: Any) -> _Content:
    """Decompress and check a file.

    Raises:
        InputError: If it is not a DocBin, or its arrays are inconsistent.
    """
    content = _unpack(data, where)
    keys = ("attrs", "tokens", "spaces", "lengths", "strings", "cats")
    if not isinstance(content, dict) or not all(key in content for key in keys):
        fail(where, "not a DocBin", allowed=ALLOWED, remedy=REMEDY)
    attrs, strings = content["attrs"], content["strings"]
    raw = [content[key] for key in ("tokens", "spaces", "lengths")]
    if (
        not isinstance(attrs, list)
        or not all(type(attr) is int for attr in attrs)
        or not isinstance(strings, list)
        or not all(isinstance(string, str) for string in strings)
        or not all(isinstance(value, bytes) for value in raw)
        or len(raw[2]) % 4
    ):
        fail(where, "a field of the DocBin has the wrong type", allowed=ALLOWED, remedy=REMEDY)
    lengths = np.frombuffer(raw[2], dtype="<i4").tolist()
    count = sum(lengths)
    if min(lengths, default=0) < 0 or len(raw[0]) != 8 * count * len(attrs) or len(raw[1]) != count:
        fail(where, "the numbers of tokens in the DocBin differ", allowed=ALLOWED, remedy=REMEDY)
    tokens = np.frombuffer(raw[0], dtype="<u8").reshape((count, len(attrs)))  # [tokens, attributes]
    numbers = {column: getattr(spacy.attrs, column) for column in COLUMNS}
    columns = [tokens[:, attrs.index(n)] if n in attrs else np.zeros(count, dtype="u8") for n in numbers.values()]
    lists = {
        "flags": content.get("flags", [{}] * len(lengths)),
        "cats": content["cats"],
        "span_groups": content.get("span_groups", [b""] * len(lengths)),
        "user_data": content.get("user_data", [None] * len(lengths)),
    }
    if numbers["ORTH"] not in attrs or any(not isinstance(v, list) or len(v) != len(lengths) for v in lists.values()):
        fail(where, "a field of the DocBin does not have a value per document", allowed=ALLOWED, remedy=REMEDY)
    spaces = np.frombuffer(raw[1], dtype="u1") != 0
    return _Content(lengths, np.stack(columns, axis=1), spaces, strings, lists)


def _unpack(data: bytes, where: str) -> Any:
    """Return the msgpack object of a file."""
    srsly = import_extra("srsly", "spaCy", "docbin", "spacy")
    limit = max(MIN_BYTE_LIMIT, MAX_RATIO * len(data))
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(data, limit)
        if not unpacker.eof:
            found = f"unpacks to more than {limit:,} bytes" if len(content) == limit else "incomplete data"
            fail(where, found, allowed=ALLOWED, remedy=REMEDY)
        return srsly.msgpack_loads(content)
    except InputError:
        raise
    except Exception as error:  # zlib and msgpack raise various errors
        fail(where, f"not a DocBin that can be read ({type(error).__name__})", allowed=ALLOWED, remedy=REMEDY)


def _check_strings(content: _Content, vocab: Any, where: str) -> None:
    """Check that the file contains the string of each number; spaCy does not check it."""
    for at, column in enumerate(COLUMNS):
        if column != "ENT_IOB" and any(int(n) not in vocab.strings for n in np.unique(content.tokens[:, at])):
            fail(where, f"strings of the attribute {column} are missing", allowed=ALLOWED, remedy=REMEDY)


def _restore(content: _Content, number: int, tokens: slice, vocab: Any, where: str, spacy: Any) -> Any:
    """Return spaCy's object of one document.

    Raises:
        InputError: If spaCy rejects its content.
    """
    single = spacy.tokens.DocBin(attrs=list(COLUMNS))
    order = [getattr(spacy.attrs, column) for column in COLUMNS]
    flags = content.lists["flags"][number]
    single.attrs = order
    single.tokens = [np.ascontiguousarray(content.tokens[tokens])]
    single.spaces = [content.spaces[tokens].reshape((-1, 1))]
    single.flags = [{"has_unknown_spaces": isinstance(flags, dict) and bool(flags.get("has_unknown_spaces"))}]
    single.cats = [content.lists["cats"][number]]
    single.span_groups = [content.lists["span_groups"][number]]
    try:
        return next(single.get_docs(vocab))
    except Exception as error:  # spaCy has no common class of errors
        fail(where, f"not a document that can be read ({type(error).__name__})", allowed=ALLOWED, remedy=REMEDY)


def _list_spans(doc: Any, where: str) -> list[tuple[str, int, int, str, str]]:
    """Return label, offsets and ids of the entities and of the spans of all groups, each once."""
    try:
        sources = [[(e.label_, e.start_char, e.end_char, e.kb_id_, e.ent_id_) for e in doc.ents]]
        for key, group in doc.spans.items():
            sources.append([(s.label_ or str(key), s.start_char, s.end_char, s.kb_id_, s.id_) for s in group])
    except Exception as error:  # spaCy has no common class of errors
        fail(where, f"spans that cannot be read ({type(error).__name__})", allowed=ALLOWED, remedy=REMEDY)
    rows: Counter[tuple[str, int, int, str, str]] = Counter()
    for source in sources:
        rows |= Counter(source)  # the larger of both counts
    return sorted(rows.elements(), key=lambda row: (row[1], row[2], row[0]))


def _read_user_data(data: Any, where: str) -> dict[str, str]:
    """Return the strings and numbers of a document's user data and extension attributes."""
    if not data:
        return {}
    try:
        content = import_extra("srsly", "spaCy", "docbin", "spacy").msgpack_loads(data, use_list=False)
    except Exception as error:  # msgpack raises various errors
        fail(where, f"user data that cannot be read ({type(error).__name__})", allowed=ALLOWED, remedy=REMEDY)
    found: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(key, str):
            found[key] = value
        elif isinstance(key, tuple) and len(key) == 4 and key[0] == EXTENSION and key[2] is None:
            found.setdefault(str(key[1]), value)
    return collect_metadata(found)


def _warn(doc: Any, errors: AnnotationErrors, where: str) -> None:
    if doc.cats:
        errors.warn(where, "categories of documents are not read")
    if doc.has_unknown_spaces:
        errors.warn(where, "the white space of texts is unknown; tokens are separated by blanks")
