"""Manifests: the list of images, from folders, tables and files; its checks, splits and matching."""
