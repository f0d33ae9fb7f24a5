"""Corpora: one file a format, one table; splits; checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.table import Table

if TYPE_CHECKING:
    from clinie_core.corpora.corpus_format import CorpusFormat

__all__ = ["FORMATS"]

FORMATS: Table[type[CorpusFormat]] = Table(
    "corpus format",
    {
        "brat": "clinie_core.corpora.brat:Brat",
        "jsonl": "clinie_core.corpora.jsonl:Jsonl",
        "i2b2": "clinie_core.corpora.i2b2:I2b2",
        "radgraph": "clinie_core.corpora.radgraph:RadGraph",
        "bioc_xml": "clinie_core.corpora.bioc_xml:BiocXml",
        "bioc_json": "clinie_core.corpora.bioc_json:BiocJson",
        "pubtator": "clinie_core.corpora.pubtator:PubTator",
        "conll": "clinie_core.corpora.conll:Conll",
        "hf_dataset": "clinie_core.corpora.hf_dataset:HfDataset",
    },
)
