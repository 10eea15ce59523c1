"""What ``mobile-vla bench`` is made of: what is timed and looked at first, the instruments, the report."""
