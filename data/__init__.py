"""From English captions to an audited multilingual dataset: schema, readers, translation, audit, demo corpus."""
