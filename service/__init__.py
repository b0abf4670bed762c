"""An artifact behind HTTP. Imports the plain half of `models`, and never torch."""
