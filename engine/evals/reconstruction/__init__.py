"""Reconstruction of images from a backbone's feature map by deep image priors."""
