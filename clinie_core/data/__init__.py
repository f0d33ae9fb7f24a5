"""Annotated documents: the document model, corpora and their formats, the schema of types, and BIO tags."""
