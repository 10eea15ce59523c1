"""What becomes of a trained network before it drives fast: programs that need none of its Python."""
