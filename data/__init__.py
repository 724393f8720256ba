"""From captions in English to a multilingual dataset: sources, translations, the demo corpus and their schema."""
