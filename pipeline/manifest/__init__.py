"""Tables that people write: clips, classes, texts and their checker, variants."""
