"""Architectures without their heads, and what is known of them without building them."""
