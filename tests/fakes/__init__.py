"""In-memory fakes of the managers' seams (store, launcher, kernel, resolver, namespaces), on a loop stepped by hand."""
