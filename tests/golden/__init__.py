"""Golden pairs: NAME.eml is a message, NAME.json is its content, checked by a person."""
