"""Labelled images by index, and the order in which a run takes them."""
