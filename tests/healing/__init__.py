"""Many things that happen while parts of a host fail, and what is left of that when all works again."""
