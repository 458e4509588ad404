"""From text to a number without a model: verifiers, penalties, and the user's own functions. No torch here."""
