"""Training: what `models.train` is made of."""
