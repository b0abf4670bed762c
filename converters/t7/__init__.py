"""The Torch7 reader: a `.t7` file -> a `Network`."""
