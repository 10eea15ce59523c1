"""One reader for each format: from a file, whole or damaged, to a layout. None of them runs what a file holds."""
