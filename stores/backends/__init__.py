"""Storage: one contract (`base`), a local and an object backend, and the locks between processes."""
