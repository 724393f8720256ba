"""The languages of the project, by code. The first one is the language that corpora are published in."""

LANGUAGES = ("en", "pt", "es", "fr", "de", "nl", "it", "zh", "ko", "ru")
