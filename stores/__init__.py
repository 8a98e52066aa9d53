"""What is kept: manifests, banks, and the storage beneath them. Nothing here knows torch or images."""
