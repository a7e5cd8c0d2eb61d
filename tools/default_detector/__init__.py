"""Makes the default detector: gathers texts, measures their tokens, chooses by leaving out, and writes what ships."""
