"""Cross-modal recall. `evaluate.load` finds the script by the name of the folder."""
