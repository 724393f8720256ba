"""Evaluation: embeddings, cross-modal retrieval, zero-shot classification, and the report of both in every language."""
