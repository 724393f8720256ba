"""Cross-modal recall: the script that `evaluate.load` finds by the folder's name."""
