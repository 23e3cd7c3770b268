"""Networks of this host: made and removed, their endpoints, and how they are shown."""
