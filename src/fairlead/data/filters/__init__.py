"""Small steps of the data refinery: each keeps, changes or drops one record, and says why. No torch here."""
