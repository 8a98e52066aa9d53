"""One file per subject; `suite.registered` imports them all. A new capability adds a file here."""
