"""Studies: one file says what is embedded and evaluated; a run makes what is missing."""
