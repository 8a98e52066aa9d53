"""Finetuning: a backbone and a linear head trained on together on images, as the study does."""
