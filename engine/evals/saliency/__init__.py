"""Occlusion saliency: where a feature changes when a square of the image is covered, and how widely."""
