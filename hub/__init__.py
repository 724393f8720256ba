"""Publishing: the model folder that the Hub understands, and its evaluation card."""
