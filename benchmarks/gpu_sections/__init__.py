"""Sections of the GPU benchmark; each measures one part in its own process."""
