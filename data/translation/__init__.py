"""Machine translation of captions: engines, checks, and the records that a build reads."""
