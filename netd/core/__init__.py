"""What every part builds on: errors, times, filters, identities, records and events."""
