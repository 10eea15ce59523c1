"""The bases that we know: one file each, named in the entry points ``mobile_vla.bases``."""
