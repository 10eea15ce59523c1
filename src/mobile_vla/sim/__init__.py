"""The simulated world: a camera and a base like any other, plus the truth that only a simulator knows."""
