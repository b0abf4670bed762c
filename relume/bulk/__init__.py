"""Classifying more images than one process should: parts, which any scheduler or Ray works off."""
