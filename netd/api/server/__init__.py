"""The server: connections, requests, answers; what every route stands on."""
