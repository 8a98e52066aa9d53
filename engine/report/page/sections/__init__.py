"""Sections of the page: each module has `sections(page, options)`, empty where nothing is to show."""
