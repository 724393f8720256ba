"""The demo corpus: overhead scenes that are drawn on the spot, with captions in ten languages."""
