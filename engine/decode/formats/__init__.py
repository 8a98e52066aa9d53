"""File formats: what their bytes say before a decoder sees them, and the decoders that embank writes itself."""
