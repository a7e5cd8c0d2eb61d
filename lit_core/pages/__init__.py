"""Pages in HTML: the frame that all of them share, light and dark, in which names and texts of others are escaped."""
