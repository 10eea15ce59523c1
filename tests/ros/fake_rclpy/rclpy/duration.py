class Duration:
    def __init__(self, *, seconds=0, nanoseconds=0) -> None:
        self.nanoseconds = int(seconds * 1_000_000_000) + nanoseconds
