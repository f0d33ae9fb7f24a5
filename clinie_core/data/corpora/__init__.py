"""Corpora: a registry of formats with one module each, loading, splits, checks and conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.registry import Registry

if TYPE_CHECKING:
    from clinie_core.data.corpora.corpus_format import CorpusFormat

__all__ = ["FORMATS"]

FORMATS: Registry[type[CorpusFormat]] = Registry(
    "corpus format",
    {
        "brat": "clinie_core.data.corpora.brat:Brat",
        "jsonl": "clinie_core.data.corpora.jsonl:Jsonl",
        "i2b2": "clinie_core.data.corpora.i2b2:I2b2",
        "radgraph": "clinie_core.data.corpora.radgraph:RadGraph",
        "bioc_xml": "clinie_core.data.corpora.bioc_xml:BiocXml",
        "bioc_json": "clinie_core.data.corpora.bioc_json:BiocJson",
        "pubtator": "clinie_core.data.corpora.pubtator:PubTator",
        "conll": "clinie_core.data.corpora.conll:Conll",
        "label_studio": "clinie_core.data.corpora.label_studio:LabelStudio",
        "doccano": "clinie_core.data.corpora.doccano:Doccano",
        "spacy_jsonl": "clinie_core.data.corpora.spacy_jsonl:SpacyJsonl",
        "docbin": "clinie_core.data.corpora.docbin:DocBin",
        "bionlp": "clinie_core.data.corpora.bionlp:BioNlp",
        "i2b2_xml": "clinie_core.data.corpora.i2b2_xml:I2b2Xml",
        "ddi_xml": "clinie_core.data.corpora.ddi_xml:DdiXml",
        "webanno_tsv": "clinie_core.data.corpora.webanno_tsv:WebAnnoTsv",
        "cas_xmi": "clinie_core.data.corpora.cas_xmi:CasXmi",
        "ade": "clinie_core.data.corpora.ade:Ade",
        "medcat": "clinie_core.data.corpora.medcat:MedCat",
        "hf_jsonl": "clinie_core.data.corpora.hf_jsonl:HfJsonl",
        "hf_dataset": "clinie_core.data.corpora.hf_dataset:HfDataset",
    },
)
