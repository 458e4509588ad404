"""Any files in, clean and accounted-for rows out. No torch here."""
