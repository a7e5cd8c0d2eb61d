"""What a detector found in a text, as a page for people; and the server that shows it."""
