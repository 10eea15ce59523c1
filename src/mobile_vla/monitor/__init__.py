"""What people see of a drive: the live line, the film, the map, and the outcome in words."""
