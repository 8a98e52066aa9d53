"""What goes wrong on purpose: killed processes, and whether a resume makes good."""
