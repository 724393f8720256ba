"""Evaluation: embeddings, cross-modal retrieval, zero-shot classification, and their report in every language."""
