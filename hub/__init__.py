"""Conversion, export, model card and publishing."""
