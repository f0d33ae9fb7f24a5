"""Training of one configuration: optimizer, epochs, resumable state, memory estimate."""
