"""One file a subject; `suite.registered` imports them all. A new capability adds its own file here."""
