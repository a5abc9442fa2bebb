"""Golden pairs: NAME.eml is a message, NAME.json is what it says, checked by a person."""
