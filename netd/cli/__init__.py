"""The command line client: Docker's verbs over the Docker Engine API, imported verb by verb to start fast."""
