"""Zero-shot classification: the script that `evaluate.load` finds by the folder's name."""
