"""From English captions to an audited multilingual dataset: schema, readers, translation, audit, demo corpus."""

# Defined here so that command lines can list the codes without importing `datasets`.
LANGUAGES = ("en", "pt", "es", "fr", "de", "nl", "it", "zh", "ko", "ru")
