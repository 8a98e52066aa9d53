"""The report page: one self-contained HTML file, drawn from records."""
