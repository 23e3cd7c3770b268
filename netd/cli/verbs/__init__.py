"""The verbs, by noun; imported one by one."""
