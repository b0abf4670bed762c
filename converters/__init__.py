"""From the files of dead frameworks to verified artifacts."""
