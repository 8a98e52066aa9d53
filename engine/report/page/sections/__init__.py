"""The sections of a page, one subject a file: `sections(page, options)` returns what there is to show."""
