"""Recording on a real robot: by hand, or a policy's drives with a person's corrections."""
