"""File formats: what their bytes say before a decoder sees them, and decoders that embank writes itself."""
