"""Images: what is stored, what they are called, and how they come in."""
