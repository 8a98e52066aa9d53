"""What is computed: from image files to features, from features to results.

Users import `embank`, which is `engine/embank`; the rooms and who may import whom are described in
docs/explanation/architecture.md.
"""
