"""From nothing to a policy: data, the loop, and the stages of a run."""
