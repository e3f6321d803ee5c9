"""A whole cloud that is none: see README.md."""
